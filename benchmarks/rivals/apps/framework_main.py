"""The handler for functions-framework."""

from __future__ import annotations

calls = 0


def hello(request):
    global calls
    calls += 1
    return {"greeting": f"hello {request.get_json().get('name', 'world')}", "calls": calls, "request": "-"}
