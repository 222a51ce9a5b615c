"""Where bytes live and how they are named: a local folder or an S3 bucket behind one interface."""
