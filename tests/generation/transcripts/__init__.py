"""For each call format a transcript as the family's models write it, and what it means."""

from typing import Any

from msgspec import Struct

from app.generation.tools.toolbox import Tool


class Transcript(Struct, frozen=True):
    """``text`` as it is generated, the ``content`` and the ``calls`` (name, arguments) in it, and the malformed
    ``broken`` text with the content that becomes of it.
    """

    text: str
    content: str
    calls: tuple[tuple[str, dict[str, Any]], ...]
    broken: str
    remains: str


WEATHER = Tool(
    "get_weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "units": {"enum": ["celsius", "fahrenheit"]},
            "detailed": {"type": "boolean"},
        },
        "required": ["city"],
    },
    "The weather of the next days.",
)
NOTE = Tool(
    "save_note",
    {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "place": {"type": "object", "properties": {"lat": {"type": "number"}, "name": {"type": "string"}}},
            "priority": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        },
        "required": ["title"],
    },
)
NOW = Tool("now", {"type": "object", "properties": {}})
TOOLS = (WEATHER, NOTE, NOW)

PARIS = ("get_weather", {"city": "Paris", "days": 3})
QUOTED = ("save_note", {"title": 'Say "hi"\n<b>', "tags": ["a", "b c"], "place": {"lat": -1.5, "name": "Böö"}})
CLOCK: tuple[str, dict[str, object]] = ("now", {})

TRANSCRIPTS: dict[str, Transcript] = {
    "json_tools": Transcript(
        text='Let me look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n'
        "</tool_call>\n"
        '<tool_call>\n{"arguments": {"title": "Say \\"hi\\"\\n<b>", "tags": ["a", "b c"], "place": {"lat": -1.5, '
        '"name": "Böö"}}, "name": "save_note"}\n</tool_call>\n<tool_call>\n{"name": "now"}\n</tool_call>',
        content="Let me look.",
        calls=(PARIS, QUOTED, CLOCK),
        broken='So: <tool_call>\n{"name": get}\n</tool_call> and on',
        remains='So: \n{"name": get}\n and on',
    ),
    "llama3_json": Transcript(
        text='<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris", "days": 3}}; {"name": "now", '
        '"parameters": {}}',
        content="",
        calls=(PARIS, CLOCK),
        broken='{"name": "nothing", "parameters": {}} is JSON',
        remains='{"name": "nothing", "parameters": {}} is JSON',
    ),
    "mistral": Transcript(
        text='[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}, {"name": "save_note", '
        '"arguments": {"title": "Say \\"hi\\"\\n<b>", "tags": ["a", "b c"], "place": {"lat": -1.5, "name": "Böö"}}}]'
        "[TOOL_CALLS]now[ARGS]{}",
        content="",
        calls=(PARIS, QUOTED, CLOCK),
        broken="Well [TOOL_CALLS]nothing at all",
        remains="Well nothing at all",
    ),
    "kimi_k2": Transcript(
        text="Wait.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"city": "Paris", "days": 3}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>'
        "{}<|tool_call_end|><|tool_calls_section_end|>",
        content="Wait.",
        calls=(PARIS, CLOCK),
        broken="<|tool_calls_section_begin|>nothing<|tool_calls_section_end|>",
        remains="nothing",
    ),
    "kimi_k3": Transcript(
        text='<|open|>response<|sep|>Wait.<|close|>response<|sep|><|open|>tools<|sep|><|open|>call tool="get_weather" '
        'index="1"<|sep|><|open|>argument key="city" type="string"<|sep|>Paris<|close|>argument<|sep|><|open|>argument '
        'key="days" type="number"<|sep|>3<|close|>argument<|sep|><|close|>call<|sep|><|open|>call tool="save_note" '
        'index="2"<|sep|><|open|>json type="object"<|sep|>{"title": "Say \\"hi\\"\\n<b>", "tags": ["a", "b c"], '
        '"place": {"lat": -1.5, "name": "Böö"}}<|close|>json<|sep|><|close|>call<|sep|><|open|>call tool="now" '
        'index="3"<|sep|><|close|>call<|sep|><|close|>tools<|sep|><|close|>message<|sep|>',
        content="Wait.",
        calls=(PARIS, QUOTED, CLOCK),
        broken='<|open|>tools<|sep|><|open|>call tool="f"<|sep|><|close|>tools<|sep|>',
        remains='<|open|>call tool="f"<|sep|>',
    ),
    "qwen3_coder": Transcript(
        text="Sure.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=save_note>\n<parameter=title>\n"
        'Say "hi"\n<b>\n</parameter>\n<parameter=tags>\n["a", "b c"]\n</parameter>\n<parameter=place>\n'
        '{"lat": -1.5, "name": "Böö"}\n</parameter>\n</function>\n</tool_call>\n'
        "<tool_call>\n<function=now>\n</function>\n</tool_call>",
        content="Sure.",
        calls=(PARIS, QUOTED, CLOCK),
        broken="<tool_call>\n<fun=get>\n</tool_call>",
        remains="\n<fun=get>\n",
    ),
    "glm47": Transcript(
        text="<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call><tool_call>save_note<arg_key>title</arg_key><arg_value>"
        'Say "hi"\n<b></arg_value><arg_key>tags</arg_key><arg_value>["a", "b c"]</arg_value><arg_key>place</arg_key>'
        '<arg_value>{"lat": -1.5, "name": "Böö"}</arg_value></tool_call><tool_call>now</tool_call>',
        content="",
        calls=(PARIS, QUOTED, CLOCK),
        broken="a <tool_call>b</tool_call> c",
        remains="a b c",
    ),
    "longcat": Transcript(
        text="<longcat_tool_call>get_weather\n<longcat_arg_key>city</longcat_arg_key>\n<longcat_arg_value>Paris"
        "</longcat_arg_value>\n<longcat_arg_key>days</longcat_arg_key>\n<longcat_arg_value>3</longcat_arg_value>\n"
        "</longcat_tool_call>",
        content="",
        calls=(PARIS,),
        broken="<longcat_tool_call>what</longcat_tool_call>",
        remains="what",
    ),
    "minimax_m2": Transcript(
        text='Now.\n<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
        '<parameter name="days">3</parameter>\n</invoke>\n<invoke name="save_note">\n<parameter name="title">'
        'Say "hi"\n<b></parameter>\n<parameter name="tags">["a", "b c"]</parameter>\n<parameter name="place">'
        '{"lat": -1.5, "name": "Böö"}</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n</minimax:tool_call>',
        content="Now.",
        calls=(PARIS, QUOTED, CLOCK),
        broken="<minimax:tool_call>\nnothing</minimax:tool_call>",
        remains="\nnothing",
    ),
    "muse_spark": Transcript(
        text='<atem:function_calls>\n<atem:invoke name="get_weather">\n<atem:parameter name="city">Paris'
        '</atem:parameter>\n<atem:parameter name="days">3</atem:parameter>\n</atem:invoke>\n</atem:function_calls>',
        content="",
        calls=(PARIS,),
        broken="<atem:function_calls>?</atem:function_calls>",
        remains="?",
    ),
    "minicpm5": Transcript(
        text='<function name="get_weather"><param name="city">Paris</param><param name="days">3</param></function>'
        '<function name="save_note"><param name="title"><![CDATA[Say "hi"\n<b>]]></param><param name="tags">'
        '["a", "b c"]</param><param name="place">{"lat": -1.5, "name": "Böö"}</param></function>'
        '<function name="now"></function>',
        content="",
        calls=(PARIS, QUOTED, CLOCK),
        broken='<function name="f">?</function>',
        remains='f">?',
    ),
    "pythonic": Transcript(
        text='<|tool_call_start|>[get_weather(city=\'Paris\', days=3), save_note(title="Say \\"hi\\"\\n<b>", '
        "tags=['a', 'b c'], place={'lat': -1.5, 'name': 'Böö'}), now()]<|tool_call_end|>Done.",
        content="Done.",
        calls=(PARIS, QUOTED, CLOCK),
        broken="<|tool_call_start|>[nothing(a=1)]<|tool_call_end|>",
        remains="[nothing(a=1)]",
    ),
    "function_gemma": Transcript(
        text="<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:3}<end_function_call>"
        '<start_function_call>call:save_note{title:<escape>Say "hi"\n<b><escape>,tags:[<escape>a<escape>,'
        "<escape>b c<escape>],place:{lat:-1.5,name:<escape>Böö<escape>}}<end_function_call>"
        "<start_function_call>call:now{}<end_function_call>",
        content="",
        calls=(PARIS, QUOTED, CLOCK),
        broken="<start_function_call>call:f{}<end_function_call>",
        remains="call:f{}",
    ),
    "gemma4": Transcript(
        text='Hm <|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|><|tool_call>call:save_note{'
        'title:<|"|>Say "hi"\n<b><|"|>,tags:[<|"|>a<|"|>,<|"|>b c<|"|>],place:{lat:-1.5,name:<|"|>Böö<|"|>}}'
        "<tool_call|>",
        content="Hm",
        calls=(PARIS, QUOTED),
        broken="<|tool_call>what<tool_call|>",
        remains="what",
    ),
    "apertus": Transcript(
        text='Let me see.<|tools_prefix|>[{"get_weather": {"city": "Paris", "days": 3}}, {"save_note": {"title": "Say '
        '\\"hi\\"\\n<b>", "tags": ["a", "b c"], "place": {"lat": -1.5, "name": "Böö"}}}, {"now": {}}]<|tools_suffix|>',
        content="Let me see.",
        calls=(PARIS, QUOTED, CLOCK),
        broken='<|tools_prefix|>[{"f": {}}]<|tools_suffix|>',
        remains='[{"f": {}}]',
    ),
    "command_r7b": Transcript(
        text='<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Paris", '
        '"days": 3}},\n    {"tool_call_id": "1", "tool_name": "now", "parameters": {}}\n]<|END_ACTION|>',
        content="",
        calls=(PARIS, CLOCK),
        broken='<|START_ACTION|>[{"tool_name": "f", "parameters": {}}]<|END_ACTION|>',
        remains='[{"tool_name": "f", "parameters": {}}]',
    ),
    "deepseek_r1": Transcript(
        text="So.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris", "days": 3}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n'
        "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        content="So.",
        calls=(PARIS, CLOCK),
        broken="<｜tool▁calls▁begin｜>none<｜tool▁calls▁end｜>",
        remains="none",
    ),
    "deepseek_v31": Transcript(
        text='<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris", "days": 3}'
        "<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        content="",
        calls=(PARIS, CLOCK),
        broken="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
        remains="f{}",
    ),
    "seed_oss": Transcript(
        text="Yes.\n<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n<parameter=days>3"
        '</parameter>\n</function>\n<function=save_note>\n<parameter=title>Say "hi"\n<b></parameter>\n'
        "<parameter=tags>['a', 'b c']</parameter>\n<parameter=place>{'lat': -1.5, 'name': 'Böö'}</parameter>\n"
        "</function>\n</seed:tool_call>",
        content="Yes.",
        calls=(PARIS, QUOTED),
        broken="<seed:tool_call>\n<function=f>\n</function>\n</seed:tool_call>",
        remains="\n<function=f>\n</function>\n",
    ),
}
TRANSCRIPTS["laguna"] = TRANSCRIPTS["glm47"]
