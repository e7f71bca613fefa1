"""ClickHouse: client, migrations, the archive writer, and the walk behind `why`."""
