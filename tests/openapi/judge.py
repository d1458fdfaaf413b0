"""Judges answers, and the examples of the document, by the document's own schemas.

Takes a file with the document and what was asked and answered; prints everything that is not as documented."""

import json
import sys

from jsonschema import Draft202012Validator, FormatChecker

everything = json.load(open(sys.argv[1]))
document, exchanges = everything["document"], everything["exchanges"]
faults = []
judged = 0


def resolved(value):
    if "$ref" not in value:
        return value
    found = document
    for part in value["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found


def judge(schema, value, what):
    global judged
    judged += 1
    whole = {"components": document["components"], "allOf": [schema]}
    for error in Draft202012Validator(whole, format_checker=FormatChecker()).iter_errors(value):
        faults.append(f"{what}: {error.json_path}: {error.message[:500]}")


def messages(media, body):
    """The messages of an answer, by its media type."""
    if media == "application/json":
        return [json.loads(body)]
    if media == "application/x-ndjson":
        return [json.loads(line) for line in body.splitlines()]
    assert media == "text/event-stream", media
    return [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line.startswith("data: ")]


for exchange in exchanges:
    operation = document["paths"][exchange["path"]][exchange["method"]]
    what = f"{exchange['operation']} {exchange['status']}"
    answer = operation["responses"].get(str(exchange["status"]))
    if answer is None:
        faults.append(f"{what}: the status is not documented")
        continue
    answer = resolved(answer)
    content = answer["content"].get(exchange["media"])
    if content is None:
        faults.append(f"{what}: {exchange['media']} is not documented")
        continue
    schema = content["schema"]
    found = messages(exchange["media"], exchange["body"])
    assert found, what
    for message in found:
        judge(schema.get("contentSchema", schema), message, what)
    for header in answer.get("headers", {}):
        if header.lower() not in exchange["headers"] and header not in ("Retry-After",):
            faults.append(f"{what}: no header {header}")
    if exchange["status"] == 200 and exchange["request"] is not None:
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        judge(body, exchange["request"], f"{what}, its request")


def examples(value, what):
    """Every example beside its schema, wherever it stands."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            examples(item, f"{what}/{index}")
    elif isinstance(value, dict):
        if "example" in value and "schema" in value:
            judge(value["schema"], value["example"], f"the example at {what}")
        for key, item in value.items():
            if key != "example":
                examples(item, f"{what}/{key}")


examples(document["paths"], "paths")
examples(document["components"]["responses"], "components/responses")
examples(document["components"]["headers"], "components/headers")
print("\n".join(faults) if faults else f"judged {judged} values")
sys.exit(bool(faults))
