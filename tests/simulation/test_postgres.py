"""The PostgreSQL that other tests rely on."""

from pathlib import Path

from sqlalchemy import create_engine, text

from scripts.simulation.postgres import Postgres
from scripts.simulation.processes import is_port_free


async def test_postgres() -> None:
    """Test that what was written is there after a restart, and after a kill."""
    async with Postgres() as postgres:
        engine = create_engine(postgres.url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE numbers (number integer)"))
        for number, again in enumerate((postgres.restart, postgres.kill)):
            with engine.begin() as connection:
                connection.execute(
                    text("INSERT INTO numbers VALUES (:number)"), {"number": number}
                )
            # Whoever is connected does not keep it from stopping
            await again()
            engine.dispose()
            if not postgres.running:
                await postgres.start()
        with engine.connect() as connection:
            numbers = connection.scalars(text("SELECT number FROM numbers"))
            assert sorted(numbers) == [0, 1]
        engine.dispose()
    assert is_port_free(postgres.port)


async def test_everything_goes(tmp_path: Path) -> None:
    """Test that a database of one's own stays, and a temporary one does not."""
    async with Postgres(directory=tmp_path):
        pass
    assert (tmp_path / "data").is_dir()
    async with Postgres() as postgres:
        directory = postgres._directory
        assert directory.is_dir()
    assert not directory.exists()
