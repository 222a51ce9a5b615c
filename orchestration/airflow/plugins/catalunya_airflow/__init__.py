"""Between Airflow and the library: what a task of the DAGs does, in a few lines each."""
