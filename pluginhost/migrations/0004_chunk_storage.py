"""For PostgreSQL: its usual compression takes longer than all else that is done to store a chunk."""

from __future__ import annotations

from django.db import NotSupportedError, ProgrammingError, migrations, transaction


def adapt(apps, schema_editor):
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    table = schema_editor.quote_name(apps.get_model("pluginhost", "Chunk")._meta.db_table)
    try:
        with transaction.atomic(connection.alias):
            schema_editor.execute(f"ALTER TABLE {table} ALTER COLUMN payload SET COMPRESSION lz4")
    except (NotSupportedError, ProgrammingError):  # a server that was built without it, or one before 14
        schema_editor.execute(f"ALTER TABLE {table} ALTER COLUMN payload SET STORAGE EXTERNAL")


def undo(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    table = schema_editor.quote_name(apps.get_model("pluginhost", "Chunk")._meta.db_table)
    schema_editor.execute(f"ALTER TABLE {table} ALTER COLUMN payload SET STORAGE EXTENDED")


class Migration(migrations.Migration):
    dependencies = [("pluginhost", "0003_dead_letters")]

    operations = [migrations.RunPython(adapt, undo)]
