"""What a result record must look like, so that tables can be made from it.

Records are read from folders that people edit, merge and copy into. Only what is listed here is
checked; further keys are allowed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Part(BaseModel):
    """A mapping that is checked without turning one type into another."""

    model_config = ConfigDict(strict=True, extra="allow")


class Data(Part):
    name: str
    splits: dict[str, int] | None = None


class Machine(Part):
    name: str | None = None
    device: str | None = None
    cores: int | None = None
    physical_cores: int | None = None
    threads: int | None = None
    instructions: str | None = None
    held_back: str | None = None
    ghz: Number | None = None


class Record(Part):
    version: Literal[1] = Field(alias="schema")
    week: str
    size: str
    config: dict[str, Any]
    seed: int
    metrics: dict[str, Number]
    ended: Literal["finished", "failed", "interrupted"]
    started: str
    experiment: str | None = None
    data: Data | None = None
    machine: Machine | None = None
    processes: Count | None = None
    steps: Count | None = None
    train_seconds: Seconds | None = None
    wall_seconds: Seconds | None = None


def fault(record: Any) -> str | None:
    """What is wrong with a record, in words, the first three faults; None when nothing is."""
    try:
        Record.model_validate(record)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}"
            for one in error.errors(include_url=False)
        ]
        return "; ".join(faults[:3])
    return None
