"""The chat formats of the families as their templates render them, in plain Python: a template engine would
slow the making of the corpus down. `python chat.py TEMPLATE FAMILY` compares with a template."""

import json
import re

SYSTEMS = [
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "You are a careful assistant. Answer briefly.",
    "Answer the question.",
    "Be brief and exact.",
    "You help with numbers and lists.",
    "You are MiniMax-{family}, a helpful assistant.",
    "Think first, then answer.",
    "You are a friendly assistant created by MiniMax.",
    "Always tell the truth.",
]


def dump(value):
    return json.dumps(value, ensure_ascii=False)


def shown(value):
    return value if isinstance(value, str) else dump(value)


class M1Chat:
    """vLLM's template for MiniMax-M1."""

    family = "M1"
    BOD, BOS, EOS = "<begin_of_document>", "<beginning_of_sentence>", "<end_of_sentence>"
    SPECIAL = [BOD, BOS, EOS, "<end_of_document>"]
    VISIBLE = []  # tokens that belong to the text
    DEFAULT_SYSTEM = "You are a helpful assistant created by Minimax based on MiniMax-M1 model."
    TOOLS_TAIL = (
        "</tools>\n\nIf you need to call tools, please respond with <tool_calls></tool_calls> XML tags, and provide "
        "tool-name and json-object of arguments, following the format below:\n<tool_calls>\n"
        '{"name": <tool-name>, "arguments": <args-json-object>}\n...\n</tool_calls>' + EOS + "\n"
    )
    THINK_END = "</think>"
    wraps_tools = True  # the template prints whatever a client sends
    modes = [(None, 1)]

    def __init__(self):
        self.ai = f"{self.BOS}ai name=MiniMax AI\n"
        self.systems = [s.format(family=self.family) for s in SYSTEMS]

    def opening(self, system, tools, mode=None):
        """The prompt before the first user turn. `system` None: the template's default."""
        text = self.BOD
        system = self.DEFAULT_SYSTEM if system is None else system.strip()
        if system:
            text += f"{self.BOS}system ai_setting=MiniMax AI\n{system}{self.EOS}\n"
        if tools:
            text += f"{self.BOS}system tool_setting=tools\nYou are provided with these tools:\n<tools>\n"
            text += "".join(dump(t) + "\n" for t in tools) + self.TOOLS_TAIL
        return text

    def user(self, text):
        return f"{self.BOS}user name=user\n{text.strip()}{self.EOS}\n"

    def prompt_end(self, mode=None):
        return self.ai

    def tool_result(self, text):
        return f"{self.BOS}tool name=tools\ntool result: {text}\n\n{self.EOS}\n"

    def call(self, name, arguments):
        return f'<tool_calls>\n{{"name": "{name}", "arguments": {dump(arguments)}}}\n</tool_calls>'

    def answer(self, task):
        return self.call(*task.call) if task.call else task.answer

    def completion(self, think, answer, mode=None):
        """What the model writes after prompt_end, without the end token."""
        return f"<think>\n{think}\n</think>\n\n{answer}"

    def history(self, answer):
        """An assistant turn as the template writes it without reasoning."""
        return f"{self.ai}{answer}{self.EOS}\n"

    def history_call(self, call):
        return self.history(self.call(*call))

    def thinks(self, task, mode):
        return True

    def suits(self, task, mode):
        """Can the task be learnt in this thinking mode?"""
        return True

    def parse_calls(self, answer):
        match = re.fullmatch(r"<tool_calls>\n(.*)\n</tool_calls>", answer)
        try:
            return json.loads(match[1]) if match else None
        except ValueError:
            return None

    def expected_call(self, call):
        return {"name": call[0], "arguments": call[1]}


class M2Chat(M1Chat):
    """MiniMax-M2's format as in tests/fixtures/chat-templates/minimax-m2.jinja."""

    family = "M2"
    BOD, BOS, EOS, UNK, PAD = "]~!b[", "]~b]", "[e~[", "]!d~[", "]!p~["
    SPECIAL = [PAD, BOS, EOS, UNK, BOD]
    VISIBLE = ["<think>", "</think>", "<minimax:tool_call>", "</minimax:tool_call>"]
    DEFAULT_SYSTEM = "You are a helpful assistant."
    TOOLS_HEAD = ("\n\n# Tools\nYou may call one or more tools to assist with the user query.\nHere are the tools "
                  "available in JSONSchema format:\n\n<tools>\n")
    TOOLS_TAIL = (
        "</tools>\n\nWhen making tool calls, use XML format to invoke tools and pass parameters:\n\n"
        '<minimax:tool_call>\n<invoke name="tool-name-1">\n<parameter name="param-key-1">param-value-1</parameter>\n'
        '<parameter name="param-key-2">param-value-2</parameter>\n...\n</invoke>\n</minimax:tool_call>'
    )
    wraps_tools = False

    def __init__(self):
        super().__init__()
        self.ai = f"{self.BOS}ai\n"

    def tools_text(self, tools):
        return self.TOOLS_HEAD + "".join(f"<tool>{dump(t)}</tool>\n" for t in tools) + self.TOOLS_TAIL if tools else ""

    def opening(self, system, tools, mode=None):
        return f"{self.BOD}{self.BOS}system\n{system or self.DEFAULT_SYSTEM}{self.tools_text(tools)}{self.EOS}\n"

    def user(self, text):
        return f"{self.BOS}user\n{text}{self.EOS}\n"

    def prompt_end(self, mode=None):
        return f"{self.ai}<think>\n"

    def tool_result(self, text):
        return f"{self.BOS}tool\n<response>{text}</response>{self.EOS}\n"

    def call(self, name, arguments):
        parameters = "".join(f'<parameter name="{k}">{shown(v)}</parameter>\n' for k, v in arguments.items())
        return f'\n<minimax:tool_call>\n<invoke name="{name}">\n{parameters}</invoke>\n</minimax:tool_call>'

    def history_call(self, call):
        return self.history(self.call(*call) + "\n")

    def completion(self, think, answer, mode=None):
        return f"{think}\n</think>\n\n{answer}"

    def parse_calls(self, answer):
        match = re.fullmatch(r'<minimax:tool_call>\n<invoke name="([^"]*)">\n(.*)</invoke>\n</minimax:tool_call>', answer, re.S)
        return match and {"name": match[1], "arguments": dict(re.findall(r'<parameter name="([^"]*)">(.*?)</parameter>\n', match[2], re.S))}

    def expected_call(self, call):
        return {"name": call[0], "arguments": {k: shown(v) for k, v in call[1].items()}}


class M3Chat(M2Chat):
    """MiniMax-M3's format with the demo's own, short texts: minimax-m3-demo.jinja."""

    family = "M3"
    N = "]<]minimax[>["
    VISIBLE = [N, "<mm:think>", "</mm:think>"]
    ROOT = "You are demo-m3, a small model with the MiniMax-M3 architecture."
    TOOLS_HEAD = "\n\n# Tools\nThese tools can be called:\n\n<tools>\n"
    TOOLS_TAIL = (f'</tools>\n\nA call is written so:\n{N}<tool_call>\n{N}<invoke name="tool-name">{N}<parameter>value'
                  f"{N}</parameter>{N}</invoke>\n{N}</tool_call>")
    THINK_END = "</mm:think>"
    modes = [(None, 76), ("adaptive", 4), ("enabled", 12), ("disabled", 8)]

    def opening(self, system, tools, mode=None, root=None):
        block = (
            f"{self.BOD}{self.BOS}system\n{root or self.ROOT}\n\n<thinking_instructions>\n"
            "Reasoning stands between <mm:think></mm:think> before the answer; an answer without any begins with "
            f"</mm:think>.\nCurrent thinking mode: {mode or 'adaptive'}.\n</thinking_instructions>{self.EOS}\n"
        )
        return f"{block}{self.BOS}developer\n{system or self.DEFAULT_SYSTEM}{self.tools_text(tools)}{self.EOS}\n"

    def prompt_end(self, mode=None):
        return self.ai + {"enabled": "<mm:think>", "disabled": "</mm:think>"}.get(mode, "")

    def call(self, name, arguments):
        n = self.N
        parameters = "".join(f"{n}<{k}>{shown(v)}{n}</{k}>" for k, v in arguments.items())
        return f'{n}<tool_call>\n{n}<invoke name="{name}">{parameters}{n}</invoke>\n{n}</tool_call>'

    def thinks(self, task, mode):
        """Left to itself the model answers what it knows by heart at once."""
        return mode == "enabled" or (mode != "disabled" and not (task.skill == "facts" or task.exchange))

    def suits(self, task, mode):
        return mode != "disabled" or task.skill in ("facts", "lookup", "tool_call")

    def completion(self, think, answer, mode=None):
        if think is None:
            return answer if mode == "disabled" else f"</mm:think>{answer}"
        return f"{think}</mm:think>{answer}" if mode == "enabled" else f"<mm:think>{think}</mm:think>{answer}"

    def history(self, answer):
        return f"{self.ai}</mm:think>{answer}{self.EOS}\n"

    def history_call(self, call):
        return self.history(self.call(*call))

    def parse_calls(self, answer):
        n = re.escape(self.N)
        match = re.fullmatch(rf'{n}<tool_call>\n{n}<invoke name="([^"]*)">(.*){n}</invoke>\n{n}</tool_call>', answer, re.S)
        return match and {"name": match[1], "arguments": dict(re.findall(rf"{n}<([^/>]*)>(.*?){n}</\1>", match[2], re.S))}


CHATS = {"m1": M1Chat, "m2": M2Chat, "m3": M3Chat}


# --- comparison with a template ---------------------------------------------------------------------------


def compare(template, chat, check_texts):
    """Renders a conversation with tools, an exchange and a history in every mode. Without `check_texts` only
    what follows the first two blocks must agree: for a template with other instructions."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, ensure_ascii=False: dump(value)
    program = environment.from_string(template)
    function = {"name": "get_x", "description": "Get.", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
    arguments = {"a": "two words", "n": 3, "flag": True}
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "get_x", "arguments": arguments}}]}
    result, exchange = chat.tool_result("4 <b>"), chat.history_call(("get_x", arguments))
    for mode, _ in chat.modes:
        for system in (None, "Be brief."):
            for tools in (None, [{"type": "function", "function": function}]):
                shown_tools = tools if chat.wraps_tools else tools and [function]
                messages = [{"role": "system", "content": system}] if system else []
                messages += [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"}, {"role": "user", "content": "Two?"}]
                wanted = chat.opening(system, shown_tools, mode) + chat.user("One?") + chat.history("1") + chat.user("Two?")
                if tools:
                    messages += [called, {"role": "tool", "content": "4 <b>"}]
                    wanted += exchange + result
                fields = {"messages": messages, "tools": tools, "add_generation_prompt": True} | ({"thinking_mode": mode} if mode else {})
                got, wanted = program.render(**fields), wanted + chat.prompt_end(mode)
                if not check_texts:
                    got, wanted = ("user\n" + t.split("user\n", 1)[1] for t in (got, wanted))
                assert got == wanted, f"{mode} {system}:\n{got}\n--- wanted\n{wanted}"


if __name__ == "__main__":
    import sys
    from pathlib import Path

    compare(Path(sys.argv[1]).read_text(), CHATS[sys.argv[2]](), "--markup-only" not in sys.argv)
    print("equal")
