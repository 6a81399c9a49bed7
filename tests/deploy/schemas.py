"""The schemas that come with check-jsonschema, without a process for each file."""

import json
from functools import lru_cache
from pathlib import Path

import check_jsonschema
import jsonschema


def errors(schema, document):
    """What is wrong with a document by a schema like `compose-spec`; nothing if it fits."""
    # YAML 1.1, which PyYAML reads, takes a workflow's `on` for a truth.
    document = {"on" if key is True else key: value for key, value in document.items()}
    for error in validator(schema).iter_errors(document):
        yield f"{error.json_path}: {error.message}"


@lru_cache
def validator(schema):
    directory = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor"
    read = json.loads((directory / f"{schema}.json").read_text())
    return jsonschema.validators.validator_for(read)(read)
