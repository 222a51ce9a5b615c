"""The Airflow side of the pipeline."""
