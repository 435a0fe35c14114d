"""Checks an OpenAPI document with a validator that is not ours: `openapi.py FILE`."""
import json
import sys

from openapi_spec_validator import OpenAPIV31SpecValidator

with open(sys.argv[1]) as file:
    document = json.load(file)
problems = [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]
print("\n".join(problems) or f"{len(document['paths'])} paths are as OpenAPI 3.1 wants them")
sys.exit(1 if problems else 0)
