"""Structured extraction over a folder: each text file becomes one line of a JSON Lines file, and has the schema.

    python examples/batch_extraction.py texts/ people.jsonl
    python examples/batch_extraction.py texts/ invoices.jsonl --schema invoice.json

A line is `{"file": ..., "data": {...}}`. Run it again after a kill, a crash or a failure: files that have a line are not
done again, a line that was cut off is. A file that fails is named on stderr and tried again by the next run. To have one
file done again, delete its line. `--schema` is a JSON Schema of an object, with a `title`; without it, people are looked for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel, Field

from langchain_localllama import ChatLocalLlama


class Person(BaseModel):
    """A person that a text is about."""

    name: str = Field(min_length=1, max_length=60)
    age: int | None = Field(ge=0, le=150, description="in years; null if the text does not say")
    city: str | None = Field(max_length=60, description="where the person lives; null if the text does not say")


def make_chain(llm: ChatLocalLlama, schema: dict[str, Any]) -> Runnable[Path, Any]:
    """From the path of a file to its data."""
    prompt = ChatPromptTemplate.from_messages([("system", "Take the data from the text."), ("human", "{text}")])
    read: Runnable[Path, dict[str, str]] = RunnableLambda(lambda path: {"text": path.read_text(encoding="utf-8")})
    return read | prompt | llm.with_structured_output(schema)


def read_done(output: BinaryIO) -> set[str]:
    """The files that have a line; cuts off what a kill left of the last one, and stands at the end."""
    content = output.read()
    whole = content.rfind(b"\n") + 1
    output.truncate(whole)
    output.seek(whole)
    return {json.loads(line)["file"] for line in content[:whole].splitlines()}


def write_line(output: BinaryIO, record: dict[str, Any]) -> None:
    """Add a line, and wait until it is on the disk."""
    output.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
    output.flush()
    os.fsync(output.fileno())


def extract(options: argparse.Namespace, output: BinaryIO) -> int:
    """Do what is left to do; returns how many files failed."""
    done = read_done(output)
    files = {
        path.relative_to(options.folder).as_posix(): path for path in sorted(options.folder.rglob(options.pattern))
    }
    left = [name for name in files if name not in done]
    print(f"{len(left)} of {len(files)} files to do", file=sys.stderr, flush=True)
    schema = json.loads(options.schema.read_text()) if options.schema else Person.model_json_schema()
    n_failed = 0
    with ChatLocalLlama(model=options.model, parallel=options.parallel, temperature=0, max_tokens=500) as llm:
        chain = make_chain(llm, schema)
        batch = chain.batch_as_completed(
            [files[name] for name in left], {"max_concurrency": options.parallel}, return_exceptions=True
        )
        for n, result in batch:
            if isinstance(result, Exception):
                n_failed += 1
                print(f"{left[n]}: {type(result).__name__}: {result}", file=sys.stderr, flush=True)
            else:
                write_line(output, {"file": left[n], "data": result})
    return n_failed


def main(arguments: list[str] | None = None) -> int:
    """Run the extraction; returns the exit code: 1 if a file failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the text files are")
    parser.add_argument("output", type=Path, help="the JSON Lines file, new or begun by an earlier run")
    parser.add_argument("--schema", type=Path, help="file with a JSON Schema (default: a person)")
    parser.add_argument("--pattern", default="*.txt", help="which files, in subfolders too (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=2, help="files worked on at once (default: %(default)s)")
    parser.add_argument("--model", default="smollm2-135m", help="path or other model reference (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is not a folder")
    try:
        # Two runs at once would do the same files.
        with FileLock(f"{options.output}.lock", timeout=0), options.output.open("ab+") as output:
            output.seek(0)
            return 1 if extract(options, output) else 0
    except Timeout:
        print(f"{options.output}: another run is writing it. Wait for its end.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. Run it again to go on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
