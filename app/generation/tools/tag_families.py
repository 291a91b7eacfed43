"""The families that write calls as tags."""

from app.generation.tools.format import Section
from app.generation.tools.tagged import Tags

QWEN3_CODER = Tags(
    section=Section("<tool_call>", ("</tool_call>",)),
    call="<function=",
    named=">",
    key="<parameter=",
    value=(">",),
    value_end="</parameter>",
    call_end="</function>",
    end="</tool_call>",
    gap="\n",
    pad="\n",
)
"""Qwen3-Coder, Qwen3.5 and Nemotron 3."""

GLM = Tags(
    section=Section("<tool_call>", ("</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")),
    key="<arg_key>",
    value=("</arg_key>", "<arg_value>"),
    value_end="</arg_value>",
    call_end="</tool_call>",
    gap="\n",
    loose=True,
)
"""GLM 4.5 to 4.7, and Poolside's Laguna; 4.5 and 4.6 write each tag on a line of its own, the others none."""

SEED_OSS = Tags(
    section=Section("<seed:tool_call>", ("</seed:tool_call>",)),
    call="<function=",
    named=">",
    key="<parameter=",
    value=(">",),
    value_end="</parameter>",
    call_end="</function>",
    end="</seed:tool_call>",
    gap="\n",
)
"""Seed-OSS."""

LONGCAT = Tags(
    section=Section("<longcat_tool_call>", ("</longcat_tool_call>",)),
    key="<longcat_arg_key>",
    value=("</longcat_arg_key>", "<longcat_arg_value>"),
    value_end="</longcat_arg_value>",
    call_end="</longcat_tool_call>",
)
"""LongCat Flash."""

MINIMAX = Tags(
    section=Section("<minimax:tool_call>", ("</minimax:tool_call>",)),
    call='<invoke name="',
    named='">',
    key='<parameter name="',
    value=('">',),
    value_end="</parameter>",
    call_end="</invoke>",
    end="</minimax:tool_call>",
    gap="\n",
)
"""MiniMax M2."""

MUSE_SPARK = Tags(
    section=Section("<atem:function_calls>", ("</atem:function_calls>",)),
    call='<atem:invoke name="',
    named='">',
    key='<atem:parameter name="',
    value=('">',),
    value_end="</atem:parameter>",
    call_end="</atem:invoke>",
    end="</atem:function_calls>",
    gap="\n",
)
"""Muse Spark."""

MINICPM5 = Tags(
    section=Section('<function name="', ("</function>",)),
    named='">',
    key='<param name="',
    value=('">',),
    value_end="</param>",
    call_end="</function>",
)
"""MiniCPM 5, which may put texts into CDATA."""
