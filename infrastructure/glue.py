"""The Glue catalog: a table per dataset over its staged snapshots, and databases for the published marts."""

from __future__ import annotations

from aws_cdk import Aws
from aws_cdk import aws_glue as glue
from constructs import Construct

from catalunya.datasets.model import Dataset
from catalunya.datasets.staged import ADDED_COLUMNS, PARTITION
from catalunya.datasets.types import hive_type
from catalunya.lake import layout
from infrastructure.parameters import Parameters

_PARQUET = "org.apache.hadoop.hive.ql.io.parquet"


class GlueCatalog(Construct):
    """`<database>_staging` with tables generated from the definitions, and the databases of the published marts."""

    def __init__(
        self, scope: Construct, name: str, settings: Parameters, datasets: dict[str, Dataset], lake: str
    ) -> None:
        super().__init__(scope, name)
        self.settings = settings
        self.staging = self._database(
            "staging", "Typed snapshots, one partition a day; written by the pipeline."
        )
        self._database("marts", "What was published last; set CATALUNYA_SCHEMA to its name.")
        self._database("marts_releases", "Tables that the views of what was published read.")
        for dataset in datasets.values():
            self._table(dataset, lake).add_resource_dependency(self.staging)

    def _database(self, kind: str, description: str) -> glue.CfnDatabase:
        return glue.CfnDatabase(
            self,
            "".join(word.title() for word in kind.split("_")),
            catalog_id=Aws.ACCOUNT_ID,
            database_input=glue.CfnDatabase.DatabaseInputProperty(
                name=f"{self.settings.database}_{kind}", description=description
            ),
        )

    def _table(self, dataset: Dataset, lake: str) -> glue.CfnTable:
        location = f"s3://{lake}/{layout.STAGING}/{dataset.id}/"
        columns = [
            glue.CfnTable.ColumnProperty(name=c.name, type=c.kind.hive, comment=_comment(c.description))
            for c in dataset.columns
        ]
        added = [
            glue.CfnTable.ColumnProperty(name=name, type=hive_type(kind), comment=text)
            for name, kind, text in ADDED_COLUMNS
            if name != PARTITION.name
        ]
        return glue.CfnTable(
            self,
            "".join(word.title() for word in dataset.id.split("_")),
            catalog_id=Aws.ACCOUNT_ID,
            database_name=f"{self.settings.database}_staging",
            table_input=glue.CfnTable.TableInputProperty(
                name=dataset.id,
                description=_comment(f"{dataset.grain} {dataset.description}"),
                table_type="EXTERNAL_TABLE",
                parameters=self._projection(location),
                partition_keys=[
                    glue.CfnTable.ColumnProperty(
                        name=PARTITION.name, type=hive_type(PARTITION.sql), comment=PARTITION.description
                    )
                ],
                storage_descriptor=glue.CfnTable.StorageDescriptorProperty(
                    location=location,
                    columns=[*columns, *added],
                    input_format=f"{_PARQUET}.MapredParquetInputFormat",
                    output_format=f"{_PARQUET}.MapredParquetOutputFormat",
                    serde_info=glue.CfnTable.SerdeInfoProperty(
                        serialization_library=f"{_PARQUET}.serde.ParquetHiveSerDe"
                    ),
                ),
            ),
        )

    def _projection(self, location: str) -> dict[str, str]:
        """Return the rule that partitions follow: a new snapshot is found without any call to Glue."""
        return {
            "classification": "parquet",
            "EXTERNAL": "TRUE",
            "projection.enabled": "true",
            "projection.snapshot_date.type": "date",
            "projection.snapshot_date.format": "yyyy-MM-dd",
            "projection.snapshot_date.range": f"{self.settings.first_day},NOW",
            "projection.snapshot_date.interval": "1",
            "projection.snapshot_date.interval.unit": "DAYS",
            "storage.location.template": f"{location}snapshot_date=${{snapshot_date}}/",
        }


def _comment(text: str) -> str:
    """Return the text on one line of 255 characters at most, which is what Glue takes."""
    line = " ".join(text.split())
    return line if len(line) <= 255 else f"{line[:254]}…"
