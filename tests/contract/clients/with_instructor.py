"""Instructor: a model out of an answer, by JSON schema and by a forced tool. Prints both as JSON."""

import json
import sys

import instructor
import openai
from pydantic import BaseModel, Field


class Guest(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)


def main(base_url: str, model: str) -> None:
    plain = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    told = {}
    for mode in (instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS):
        client = instructor.from_openai(plain, mode=mode)
        guest = client.chat.completions.create(
            model=model,
            response_model=Guest,
            max_retries=1,
            temperature=1.2,
            messages=[{"role": "user", "content": "Invent a guest."}],
        )
        told[mode.name] = guest.model_dump()
    print(json.dumps(told))


main(*sys.argv[1:])
