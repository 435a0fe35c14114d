"""What every Python SDK must be able to do with every provider, one printed line per cell.

A driver gives a surface: an object that asks in its SDK's words. See run.sh for the rest.
"""

import base64
import json
import os
import sys
from dataclasses import dataclass, field

# One grey pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
PIXEL_BYTES = len(base64.b64decode(PIXEL))

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Its English name."}},
    "required": ["city"],
    "additionalProperties": False,
}
CITY = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "population": {"type": "integer"},
        "mayor": {"$ref": "#/$defs/person"},
    },
    "required": ["name", "population", "mayor"],
    "additionalProperties": False,
    "$defs": {
        "person": {
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "required": ["name"],
            "additionalProperties": False,
        }
    },
}


@dataclass
class Call:
    id: str
    name: str
    arguments: dict


@dataclass
class Usage:
    """Each class of tokens; `None` where the SDK's API has no place for it."""

    input: int
    cached: int
    output: int
    written: int | None = None
    reasoning: int | None = None


@dataclass
class Answer:
    text: str
    calls: list[Call]
    thought: str
    usage: Usage
    finish: str
    # What goes back as history.
    history: list = field(default_factory=list)


@dataclass
class Question:
    model: str
    history: list
    stream: bool
    system: str | None = None
    tools: bool = False
    schema: dict | None = None
    thinks: bool = False


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def check_usage(usage, column, thinks=False):
    expected = column["input"], 30, 60 if thinks else 45
    got = usage.input, usage.cached, usage.output
    check(got == expected, f"usage is {got}, not {expected}")
    if usage.written is not None:
        check(usage.written == column["written"], f"{usage.written} tokens were written to the cache")
    if thinks and usage.reasoning is not None:
        check(usage.reasoning == column["reasoning"], f"{usage.reasoning} tokens of reasoning")


def check_calls(answer):
    cities = [(call.name, call.arguments) for call in answer.calls]
    expected = [("weather", {"city": "Paris"}), ("weather", {"city": "Rome"})]
    check(cities == expected, f"calls are {cities}")
    check(len({call.id for call in answer.calls}) == 2, "ids of calls are not distinct")
    check(answer.finish == "tools", f"it finished with {answer.finish}")


def give_results(surface, history, answer):
    history.extend(answer.history)
    history.extend(surface.results([(call, f"{at}8 C in {call.arguments['city']}") for at, call in enumerate(answer.calls, 1)]))


def check_results(answer):
    check("18 C in Paris" in answer.text and "28 C in Rome" in answer.text, f"it says {answer.text!r}")
    check(answer.text.index("18 C") < answer.text.index("28 C"), "results are in another order")
    check(answer.finish == "stop", f"it finished with {answer.finish}")


def text(surface, column, stream):
    ask = lambda history: surface.ask(Question(column["model"], history, stream, system="Be brief."))
    history = surface.user("Hello there")
    answer = ask(history)
    check(answer.text == "Voilà, turn 1 by the rules: Hello there. I said nothing before.", f"it says {answer.text!r}")
    check(answer.finish == "stop", f"it finished with {answer.finish}")
    check_usage(answer.usage, column)
    history = history + answer.history + surface.user("And again")
    again = ask(history)
    check("turn 2 by the rules: And again" in again.text and answer.text in again.text, f"it says {again.text!r}")


def tools(surface, column, stream):
    history = surface.user("How is the weather in Paris and in Rome?")
    answer = surface.ask(Question(column["model"], history, stream, tools=True))
    check_calls(answer)
    check_usage(answer.usage, column)
    give_results(surface, history, answer)
    check_results(surface.ask(Question(column["model"], history, stream, tools=True)))


def json_schema(surface, column, stream):
    history = surface.user("Describe a city as json.")
    answer = surface.ask(Question(column["model"], history, stream, schema=CITY))
    city = json.loads(answer.text)
    check(isinstance(city["name"], str) and isinstance(city["population"], int), f"it says {city}")
    if column["schema"]:
        check(isinstance(city["mayor"]["name"], str), f"it says {city}")


def image(surface, column, stream):
    history = surface.user("What is this?", PIXEL)
    answer = surface.ask(Question(column["model"], history, stream))
    check(f"image/png of {PIXEL_BYTES} bytes" in answer.text, f"it says {answer.text!r}")


def reasoning(surface, column, stream):
    history = surface.user("How is the weather?")
    ask = lambda: surface.ask(Question(column["model"], history, stream, tools=True, thinks=True))
    answer = ask()
    check_calls(answer)
    check_usage(answer.usage, column, thinks=True)
    if column["thoughts"] and surface.shows_thoughts:
        check(answer.thought == "Let me think of turn 1, sí.", f"it thinks {answer.thought!r}")
    give_results(surface, history, answer)
    # The provider refuses this unless its own state comes back unharmed.
    check_results(ask())


def replay(surface, column, stream):
    """A long conversation: begun here, continued elsewhere, ended here."""
    model, other = column["model"], column["next"]
    history = surface.user("Hello there")
    ask = lambda model, **more: surface.ask(Question(model, history, stream, system="Be brief.", **more))
    history += ask(model, thinks=True).history + surface.user("How is the weather?")
    give_results(surface, history, ask(model, tools=True, thinks=True))
    answer = ask(model, tools=True, thinks=True)
    check_results(answer)
    history += answer.history + (surface.user("Look", PIXEL) if column["images"] else surface.user("Look"))
    history += ask(model, thinks=True).history + surface.user("Go on")
    elsewhere = ask(other, thinks=True)
    check("turn 4 by the rules: Go on" in elsewhere.text, f"elsewhere it says {elsewhere.text!r}")
    history += elsewhere.history + surface.user("How is the weather now?")
    give_results(surface, history, ask(other, tools=True, thinks=True))
    answer = ask(other, tools=True, thinks=True)
    check_results(answer)
    history += answer.history + surface.user("Thank you")
    back = ask(model, thinks=True)
    check("turn 6 by the rules: Thank you" in back.text, f"back here it says {back.text!r}")


SCENARIOS = [text, tools, json_schema, image, reasoning, replay]


def run(name, connect):
    """Every cell of one SDK's surface; leaves with 1 if one failed."""
    plan = json.loads(os.environ["SWITCHPOINT_MATRIX"])
    wanted = os.environ.get("SWITCHPOINT_MATRIX_ONLY", "")
    failed = False
    for column in plan[name]:
        surface = connect(column)
        for scenario in SCENARIOS:
            for form, stream in (("whole", False), ("stream", True)):
                cell = f"{name} → {column['name']} {scenario.__name__.removesuffix('_schema')} {form}"
                if wanted not in cell:
                    continue
                if scenario is image and not column["images"]:
                    print(f"n/a  {cell}: the provider takes no images", flush=True)
                    continue
                try:
                    scenario(surface, column, stream)
                    print(f"ok   {cell}", flush=True)
                except Exception as error:
                    failed = True
                    reason = " ".join(f"{type(error).__name__}: {error}".split())
                    print(f"FAIL {cell}: {reason[:600]}", flush=True)
    sys.exit(failed)
