#include "tokenizer/chat_template.h"

namespace minimax::tokenizer {

std::string_view builtin_m1_template() {
  return R"jinja({%- macro say(head, body) -%}
{{ '<beginning_of_sentence>' ~ head ~ '\n' ~ body ~ '<end_of_sentence>\n' }}
{%- endmacro -%}
{%- macro words(content) -%}
{%- if content is string -%}
{{ content | trim }}
{%- elif content is iterable and content is not mapping -%}
{%- for part in content -%}
{%- if part is string -%}{{ part | trim }}{%- elif part.type == 'text' -%}{{ part.text | trim }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- macro results(content) -%}
{%- if content is string -%}
{{ 'tool result: ' ~ content ~ '\n\n' }}
{%- else -%}
{%- for part in content -%}
{%- if part.type == 'text' -%}
{{ 'tool result: ' ~ part.text ~ '\n\n' }}
{%- elif part.name -%}
{{ 'tool name: ' ~ part.name ~ '\ntool result: ' ~ part.text ~ '\n\n' }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- macro calls(list) -%}
<tool_calls>{{ '\n' }}
{%- for call in list -%}
{%- set function = call.function if call.function is defined else call -%}
{{ '{"name": ' ~ function.name | tojson ~ ', "arguments": ' }}
{{- function.arguments if function.arguments is string else function.arguments | tojson }}
{{- '}\n' }}
{%- endfor -%}
</tool_calls>
{%- endmacro -%}
<begin_of_document>
{%- set has_system = messages and messages[0].role == 'system' -%}
{%- set system = words(messages[0].content) if has_system else 'You are a helpful assistant created by Minimax based on MiniMax-M1 model.' -%}
{%- if system -%}
{{ say('system ai_setting=MiniMax AI', system) }}
{%- endif -%}
{%- if tools -%}
{%- set listing -%}
{{ 'You are provided with these tools:\n<tools>\n' }}
{%- for tool in tools -%}
{{ tool | tojson ~ '\n' }}
{%- endfor -%}
{{ '</tools>\n\nIf you need to call tools, please respond with <tool_calls></tool_calls> XML tags, and provide tool-name and json-object of arguments, following the format below:\n<tool_calls>\n{"name": <tool-name>, "arguments": <args-json-object>}\n...\n</tool_calls>' }}
{%- endset -%}
{{ say('system tool_setting=tools', listing) }}
{%- endif -%}
{%- for message in (messages[1:] if has_system else messages) -%}
{%- if message.role == 'user' -%}
{{ say('user name=user', words(message.content)) }}
{%- elif message.role == 'assistant' and message.tool_calls -%}
{{ say('ai name=MiniMax AI', calls(message.tool_calls)) }}
{%- elif message.role == 'assistant' -%}
{{ say('ai name=MiniMax AI', words(message.content)) }}
{%- elif message.role in ['tool', 'ipython'] -%}
{{ say('tool name=tools', results(message.content)) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<beginning_of_sentence>ai name=MiniMax AI\n' }}
{%- endif -%}
)jinja";
}

}  // namespace minimax::tokenizer
