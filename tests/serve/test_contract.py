"""Requests made from the OpenAPI document, valid and not: no server error, nothing that the document does not say."""

from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings

from heedful.serve.app import make_app
from heedful.serve.limits import ServeConfig
from heedful.translator import Translator

schemathesis = pytest.importorskip("schemathesis", reason="it makes the requests")


@pytest.fixture(scope="module")
def interface(served):
    with served(make_app([Translator.load("en-de")], ServeConfig(wait=0))) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_no_request_breaks_the_server(interface, mode):
    generation_mode = schemathesis.GenerationMode[mode]
    checks = [
        schemathesis.checks.not_a_server_error,
        schemathesis.specs.openapi.checks.status_code_conformance,
        schemathesis.specs.openapi.checks.response_schema_conformance,
    ]
    statuses = defaultdict(set)
    for found in interface.get_all_operations():
        operation = found.ok()
        if mode == "NEGATIVE" and operation.method == "get":
            continue  # it takes nothing that could be wrong

        @given(case=operation.as_strategy(generation_mode=generation_mode))
        @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def ask(case):
            if mode == "POSITIVE" and case.path in ("/translate", "/explain"):
                case.body |= {"source": "en", "target": "de"}  # languages that are here, so that some are answered
            response = case.call()
            statuses[case.path].add(response.status_code)
            case.validate_response(response, checks=checks)

        ask()
    wanted = 422 if mode == "NEGATIVE" else 200
    assert {"/translate", "/explain"} <= statuses.keys()
    assert all(wanted in seen for seen in statuses.values()), statuses
