"""Small templates, each for one corner of the language."""

DATA = {
    "a": 7,
    "b": -3,
    "f": 2.5,
    "s": "Hello, World",
    "u": "Straße ΑΣ ǅ ñ 你好 👍🏽",
    "l": [3, 1, 2],
    "n": None,
    "t": True,
    "d": {"x": 1, "y": [1, 2], "items": "key", "B": 2, "a b": 3},
    "words": ["banana", "Apple", "cherry", "apple"],
    "users": [
        {"name": "ann", "age": 30, "tags": ["x"], "on": True, "in": {"k": 2}},
        {"name": "Bob", "age": 25, "tags": [], "on": False, "in": {"k": 1}},
        {"name": "cy", "age": 30, "on": None},
    ],
    "empty": [],
    "multi": "one\n\n two\nthree\r\nfour",
    "html": "<a href=\"x\">'&'</a>",
}

EXPRESSIONS = r"""
a + b
a - b * 2
a / b
a // b
a % b
-a // 2
-a % 5
a % -5
7.5 // 2
-7.5 // 2
-7.5 % 2
7.5 % -2
2 ** 10
2 ** -1
-2 ** 2
2 ** 3 ** 2
2.0 ** 0.5
10 / 5
1 / 3
1e3
1E-5
1.5e300 * 1e10
100000000000000000.0
1e16
123456789.123
0.1 + 0.2
5 // 0
5 % 0
5.0 / 0
1_000 + 0x1f + 0b101 + 0o17
1 + true
true + true
'a' 'b' "c"
'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1]
'a' + 1
'ab' * 3
3 * 'ab'
[1, 2] * 2
[1] + [2, 3]
(1,) + (2,)
[1] + (2,)
'%s and %r' % ('x', 'y')
'%d %5d|%-5d|%05d|%+d' % (1, 2, 3, 4, 5)
'%.2f %e %g %G' % (1.005, 12345.678, 0.00001, 1e20)
'%x %X %o %c %%' % (255, 255, 8, 65)
'%s' % 'x'
'%s %s' % 'x'
'%(k)s' % {'k': 1}
'%5.1f|' % 3.14159
'%s' % (1, 2)
'%d' % 'x'
'%d' % 3.99
'%#x' % 255
'%.3s' % 'abcdef'
'%*d' % (5, 42)
a == 7
a == 7.0
true == 1
1 < 2 < 3
1 < 3 < 2
'a' < 'b'
'a' < 1
[1, 2] < [1, 3]
none == none
none < 1
a in l
3 in l
3 not in l
'Hello' in s
'x' in d
1 in d
1 in s
none in [none]
not a
not not a
a and b
0 and b
a or b
0 or ''
'x' if a else 'y'
'x' if not a
('x' if not a) is defined
a if b if n else 5
1 if 0 else 2 if 0 else 3
n
t
true
True
none
None
f
l
d
[1, 'a', none, true, 1.5, (1,), {}, {'k': 'v'}]
()
(1)
(1,)
(1, 2)
1, 2
{'a': 1, 'b': [2]}
{1: 'a', 1.0: 'b', true: 'c'}
{'a': 1}['a']
{'a': 1}.a
missing
missing.x
missing['x']
missing()
missing + 1
missing == missing2
missing is defined
missing is undefined
missing|default('d')
missing ~ 'x'
missing|length
missing|list
'x' in missing
missing|upper
missing|int
d.x
d['x']
d['items']
d.nope
d.nope.nope
d.nope is defined
d.y[0]
d.y.0
d.y[5]
d.y[-1]
d.y[5] is defined
d.get('x')
d.get('q')
d.get('q', 5)
d.keys()
d.values()
d.items()
d.keys()|list
d.items()|list
d|items|list
d|length
d|list
d.copy()
d.update({'z': 1})
d.update is defined
d.pop('x')
d.__class__
d.__class__ is defined
l.append(4)
l.sort()
l.append is defined
l.index(1)
l.index(9)
l.count(3)
l[0]
l[-1]
l[10]
l[1:]
l[:-1]
l[::-1]
l[::2]
l[5:]
l[-100:2]
l[2:0:-1]
l[::0]
l['x']
l[none]
l[1.0]
l[true]
n.x
n['x']
n[0]
n[1:]
a[1:]
s[0]
s[-1]
s[1:4]
s[::-1]
s[::-2]
s[100]
s[7:100]
s[-5:-1]
u[0]
u[4:8]
u[::-1]
u|length
u[::2]
s.upper()
s.lower()
s.title()
s.capitalize()
s.swapcase()
u.upper()
u.lower()
u.title()
u.capitalize()
u.swapcase()
'ΑΣ ΑΣΑ Σ'.lower()
'ﬁ ß İ ŉ'.upper()
'İ'.lower()
s.strip('Hd')
'  x '.strip()
'  x '.lstrip()
'  x '.rstrip() ~ '|'
'xxaxx'.strip('x')
'\u3000x\u2003'.strip()
'你好你'.strip('你')
s.split()
s.split(',')
s.split(', ', 1)
' a  b c '.split()
' a  b c '.split(none, 1)
' a  b c '.rsplit(none, 1)
'a,b,c'.rsplit(',', 1)
'a,b,c'.split(',', maxsplit=1)
''.split()
''.split(',')
'abc'.split('')
',a,,b,'.split(',')
multi.splitlines()
multi.splitlines(true)
'a\x0bb\x1cc\u2028d'.splitlines()
s.startswith('He')
s.startswith(('x', 'H'))
s.endswith('ld')
s.endswith('x')
s.startswith('ell', 1)
s.find('o')
s.rfind('o')
s.find('zz')
s.index('zz')
s.count('o')
s.count('')
u.find('好')
s.replace('o', '0')
s.replace('o', '0', 1)
'aaa'.replace('', '-')
'abc'.replace('', '-', 2)
','.join(['a', 'b'])
','.join('abc')
','.join([1])
','.join([])
'abc'.removeprefix('a')
'abc'.removesuffix('c')
'abc'.removesuffix('x')
'12'.isdigit()
'1a'.isdigit()
''.isdigit()
'²'.isdigit()
'½'.isnumeric()
'١'.isdecimal()
'abc'.isalpha()
'ab1'.isalnum()
' '.isspace()
'Abc'.istitle()
'ABC'.isupper()
'abc'.islower()
'a_1'.isidentifier()
'1a'.isidentifier()
'é'.isascii()
'a\n'.isprintable()
'7'.zfill(3)
'-7'.zfill(4)
'x'.ljust(3) ~ '|'
'x'.rjust(3)
'x'.center(4) ~ '|'
'x'.center(5, '*')
'xy'.center(5, '*')
'a-b-c'.partition('-')
'a-b-c'.rpartition('-')
'abc'.partition('-')
'a\tb'.expandtabs(4)
'{} {}'.format(1, 'x')
'{0} {1} {0}'.format('a', 'b')
'{x} {y!r}'.format(x=1, y='q')
'{:>5}|{:<5}|{:^5}|'.format(1, 'a', 'b')
'{:05d} {:+d} {:,} {:x} {:#x} {:b}'.format(42, 5, 1234567, 255, 255, 5)
'{:.2f} {:10.3f}| {:e} {:g} {:%}'.format(3.14159, 2.5, 1234.5, 0.1, 0.25)
'{0[x]} {1.name}'.format(d, users[0])
'{:*^9}'.format('mid')
'{:.3}'.format('abcdef')
'{:.3}'.format(3.14159)
'{{}} {}'.format(1)
'{}'.format()
'{a}'.format()
'{:d}'.format('x')
'{:{w}}|'.format('x', w=4)
'{!s:>4}'.format(5)
'abc'.nope
'abc'.nope()
s|upper
s|lower
s|title
'hello-world foo(bar) [x]'|title
s|capitalize
s|length
s|count
s|reverse
s|first
s|last
s|list
s|replace('l', 'L')
s|replace('l', 'L', 1)
'  x  '|trim
'xx-xx'|trim('x')
5|trim
none|trim
s|trim|upper|lower
s|wordcount
u|wordcount
s|truncate(8)
s|truncate(5, true, '..', 0)
s|truncate(9, false, '..', 0)
s|center(20) ~ '|'
multi|indent
multi|indent(2, true)
multi|indent(2, blank=true)
multi|indent('> ')
''|indent
html|e
html|escape|length
'abc'|string
1.0|string
none|string
[1]|string
'%s-%s'|format(1, 2)
'%(a)s'|format(a=1)
l|first
l|last
empty|first
empty|last
empty|first is defined
l|sort
l|sort(reverse=true)
words|sort
words|sort(case_sensitive=true)
users|sort(attribute='age')|map(attribute='name')|list
users|sort(attribute='age,name')|map(attribute='name')|list
users|sort(attribute='age', reverse=true)|map(attribute='name')|join(',')
[1, 'a']|sort
words|unique|list
words|unique(case_sensitive=true)|list
l|reverse|list
l|join
l|join(', ')
users|join(',', attribute='name')
l|sum
users|sum(attribute='age')
[[1], [2]]|sum(start=[])
l|min
l|max
words|min
words|max(case_sensitive=true)
users|max(attribute='age')
empty|min
l|map('string')|list
l|map('string')|join('-')
users|map(attribute='name')|list
users|map(attribute='in.k', default=0)|list
users|map(attribute='tags', default='none')|list
words|map('upper')|list
words|map('replace', 'a', 'A')|list
users|map('length')|list
l|map('nope')|list
l|select|list
l|select('odd')|list
l|reject('odd')|list
l|select('greaterthan', 1)|list
[0, 1, '', none]|select|list
[0, 1, '', none]|reject|list
users|selectattr('on')|map(attribute='name')|list
users|rejectattr('on')|map(attribute='name')|list
users|selectattr('age', 'equalto', 30)|list|length
users|selectattr('name', 'in', ['ann'])|map(attribute='age')|first
users|selectattr('in.k', 'defined')|list|length
users|selectattr('tags', 'undefined')|map(attribute='name')|list
users|groupby('age')|list
users|groupby('age')|map('first')|list
users|groupby('tags', default='z')|length
(users|groupby('age'))[0][1]|length
d|dictsort
d|dictsort(true)
{'b': 1, 'a': 2}|dictsort(by='value')
{'b': 1, 'a': 2}|dictsort(by='bad')
l|batch(2)|list
l|batch(2, 'x')|list
l|slice(2)|list
l|slice(2, 'x')|list
'12'|int
'12.7'|int
'x'|int
'x'|int(5)
' 7 '|int
'0x1f'|int(0, 16)
'1f'|int(base=16)
'1_000'|int
'-5'|int
3.9|int
-3.9|int
none|int
[]|int
true|int
'3.5'|float
'x'|float
'1e3'|float
'inf'|float
'-nan'|float
' 2 '|float
7|float
-5|abs
-5.5|abs
true|abs
'x'|abs
2.5|round
3.5|round
2.675|round(2)
1234.5|round(-2)
15|round(-1)
25|round(-1)
7|round
2.1|round(method='ceil')
2.19|round(1, 'floor')
-2.5|round
1e300|round(2)
x|default(5)
''|default('e')
''|default('e', true)
none|default('e')
none|d('e', boolean=true)
d|attr('x')
d|attr('keys')|string|length > 0
d|items|list
missing|items|list
l|tojson
d|tojson
d|tojson(indent=2)
d|tojson(indent=0)
[]|tojson(indent=2)
{}|tojson(indent=2)
[[], {}]|tojson(indent=1)
d|tojson(sort_keys=true)
d|tojson(separators=(',', ':'))
d|tojson(indent=2, separators=(', ', ' = '))
u|tojson
u|tojson(ensure_ascii=true)
u|tojson(true)
html|tojson
'\x00\x1f\x7f\n\t\r\x08\x0c\\"/\u2028'|tojson
'\x7f\x80'|tojson(ensure_ascii=true)
[1.0, 0.1, 1e100, -0.0, none, true]|tojson
{1: 2, none: 3, true: 4, 1.5: 5}|tojson
(1, 2)|tojson
missing|tojson
range(3)|tojson
namespace()|tojson
users|tojson|length
{'a': missing}|tojson
s is string
a is string
a is number
t is number
t is integer
t is boolean
a is integer
f is float
d is mapping
l is mapping
l is sequence
s is sequence
d is sequence
d.items() is sequence
(l|map('string')) is sequence
missing is sequence
n is iterable
s is iterable
a is iterable
(l|map('string')) is iterable
missing is iterable
range is callable
a is callable
s.upper is callable
missing is callable
n is none
n is not none
missing is none
a is odd
a is even
a is divisibleby 7
a is divisibleby(2)
0 is divisibleby 0
a is eq 7
a is ne 7
a is gt 5
a is lessthan 5
a is le 7
a is in [7]
a is in l
n is sameas none
a is sameas 7
t is true
1 is true
t is false
'abc' is lower
'ABC' is upper
'lower' is filter
'nope' is filter
'odd' is test
a is not odd
not a is odd
a is defined and b is defined
a is nope
a|nope
a is string or a is number
[1, 2] is eq [1, 2]
range(5)|list
range(1, 5)|list
range(5, 1, -2)|list
range(5)
range(1, 5, 2)
range(5)[2]
range(5)[1:3]|list
range(0)
range(1000000)|length
range(10 ** 12)
range(1, 2, 0)
range('x')
range(5)|sum
3 in range(5)
dict(a=1, b=2)
dict([('a', 1)])
dict({'a': 1}, b=2)
namespace(a=1).a
namespace({'a': 1}).a
namespace(a=1)['a']
namespace().a
cycler('a', 'b').next()
joiner(';')() ~ 'x'
raise_exception('boom')
loop is defined
(lambda)
a +
a b
[1, 2
{'a' 1}
'unclosed
a..b
a.1.5
'a'.1
a[]
a[1,2]
f(a=1, 2)
dict(**{'x': 1})
dict(*[[('k', 'v')]])
[1, 2, 3,]
{'a': 1,}
'\x41\u00e9\U0001F600\101\n\t\\\'\"\q'
"tab\there"
'é\é'
'a\
b'
'a' 'b' ~ 'c' 'd'
-l
+a
- 5
--5
+'x'
a|abs + 1
-a|abs
-1|abs
(-1)|abs
a ~ b|string
'x' * -1
'' * 5
2 ** 62
1 if missing else 2
[missing]
{'k': missing}
[none, true]|join(',')
'abc'|map('upper')|list
d|map('upper')|list
d|join(',')
d|first
d|last
d|sort
d.y|sum + 1
d == {'a b': 3, 'x': 1, 'y': [1, 2], 'items': 'key', 'B': 2}
[1, [2, (3, 4)]] == [1, [2, (3, 4)]]
(1, 2) == [1, 2]
'a' != 'b'
1 != 1.0
l is sequence and l is not string
s[1:][0]
(s ~ s)[3:8]|upper
(a, b)[0]
users[0].name|upper
users[0]['tags'][0]
users[2].tags is defined
users[2].tags[0]
users[-1]['name'][::-1]
users|length > 2 and users[0].age >= 30
'a"b' 
'a\'b'
["it's", 'say "hi"', 'both \' and "']
['\n\t\x00\x7f\xa0\u200b\ud7ff\U0001F600é']
[1e16, 1e15, 1.0, 0.0001, 0.00001, 123456789012345680.0, -0.0]
[1e22, 1e-7, 5e-324, 1.7976931348623157e308]
""".strip("\n").split("\n")

TEMPLATES = [
    "",
    "\n",
    "text\n",
    "text\n\n",
    "a\r\nb\rc\n",
    "{% if a %}\n  yes\n{% endif %}\nafter\n",
    "  {% if a %}x{% endif %}  y",
    "  {%+ if a %}x{% endif %}",
    "x {%- if a -%} y {%- endif -%} z",
    "{% if a +%}\nx{% endif %}",
    "a  {{- ' b ' -}}  c",
    "{{ a }}\n{{ b }}\n",
    "{{ a -}}\n\n {{ b }}",
    "{# comment #}\nx",
    "  {# c #}\n  y {#- d -#} z",
    "{#+ c +#}\nx",
    "{# multi\nline #}{{ missing.x }}",
    "{% raw %}{{ a }} {% if %}{% endraw %}\nx",
    "  {%- raw -%}  {{ a }}  {%- endraw -%}  y",
    "{% raw %}\n x {% endraw +%}\ny",
    "{% raw %}unclosed",
    "{# unclosed",
    "{{ unclosed",
    "{% if a %}",
    "{% endif %}",
    "{% if a %}{% endfor %}",
    "{% nope %}",
    "{% if a %}1{% elif b %}2{% else %}3{% endif %}",
    "{% if n %}1{% elif b == -3 %}2{% else %}3{% endif %}",
    "{% if n %}1{% elif n %}2{% else %}3{% endif %}",
    "{% for x in l %}{{ x }},{% endfor %}",
    "{% for x in l %}\n  {{ x }}\n{% endfor %}\nend",
    "{% for x in empty %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in missing %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in n %}{{ x }}{% endfor %}",
    "{% for x in a %}{{ x }}{% endfor %}",
    "{% for c in 'héy' %}[{{ c }}]{% endfor %}",
    "{% for k in d %}{{ k }};{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d|dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}",
    "{% for a, b in [1] %}{{ a }}{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}:{{ x }}/{{ loop.length }} {% endfor %}",
    "{% for x in l if x > 9 %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}"
    "{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }}|{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}",
    "{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem.x }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle('odd', 'even') }} {% endfor %}",
    "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }} {% endfor %}",
    "{% for x in l %}{% for y in l %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}",
    "{% for x in l %}{% if loop.first %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{{ x }}{% if x == 1 %}{% break %}{% endif %}{% else %}never{% endfor %}",
    "{% break %}",
    "{% for x in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "{% for x in l|map('string') %}{{ x }}{{ loop.last }}{% endfor %}",
    "{% set g = l|map('string') %}{{ g|list }}{{ g|list }}",
    "{% set g = l|select('odd') %}{% for x in g %}{{ x }}{% endfor %}{% for x in g %}{{ x }}{% endfor %}",
    "{% set g = d|items %}{{ g|first }}{{ g|list }}",
    "{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is sequence else x }}{{ loop.depth }}{% endfor %}",
    "{% for x in [1] %}{{ loop([2]) }}{% endfor %}",
    "{% for x in l %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}",
    "{% set ns = namespace(x=1) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
    "{% set d.x = 1 %}",
    "{% set missing.x = 1 %}",
    "{% set ns = namespace() %}{% set ns.a, b = 1, 2 %}{{ ns.a }}{{ b }}",
    "{% set x, y = 1, 2 %}{{ x }}{{ y }}",
    "{% set x, y = 1 %}",
    "{% set x = 1, 2 %}{{ x }}",
    "{% set (x, y) = [1, 2] %}{{ x + y }}",
    "{% set none = 1 %}",
    "{% set 5 = 1 %}",
    "{% set x %}block {{ a }}{% endset %}[{{ x }}]",
    "{% set x | upper | trim %} block {% endset %}[{{ x }}]",
    "{% if a %}{% set q = 1 %}{% endif %}{{ q }}",
    "{% if n %}{% set q = 1 %}{% endif %}{{ q }}",
    "{% set a = a + 1 %}{{ a }}",
    "{% macro m(x, y=2) %}{{ x }}-{{ y }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(y=4, x=5) }} {{ m() }}",
    "{% macro m(x, y=x) %}{{ x }}{{ y }}{% endmacro %}{{ m(1) }}",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(z=2) }}",
    "{% macro m(x) %}{{ x }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, z=4) }}",
    "{% macro m(x=1, y) %}{% endmacro %}",
    "{% macro m(x) %}{{ x is defined }}{{ x.y }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ a }}{% set a = 5 %}{{ a }}{% endmacro %}{{ m() }}{{ a }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% set z = 1 %}{% macro m() %}{{ z }}{% endmacro %}{% set z = 2 %}{{ m() }}",
    "{% macro m() %}{{ later }}{% endmacro %}{% set later = 2 %}{{ m() }}",
    "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}inner {{ a }}{% endcall %}",
    "{% macro m() %}[{{ caller(1, 2) }}]{% endmacro %}{% call(x, y) m() %}{{ x }}{{ y }}{% endcall %}",
    "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}",
    "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ caller() if caller }}{% endmacro %}{{ m() }}",
    "{% call missing() %}{% endcall %}",
    "{% call 5 %}{% endcall %}",
    "{% for i in l %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro m() %}{% for i in l %}{{ loop.index }}{{ i }} {% endfor %}{% endmacro %}{{ m() }}",
    "{% macro m(x) -%}\n   {{ x }}\n{%- endmacro %}[{{ m('q') }}]",
    "{{ m() }}{% macro m() %}x{% endmacro %}",
    "{% macro m() %}a{% endmacro %}{{ m() ~ m()|upper }}{{ m.name }}{{ m.arguments }}",
    "{% filter upper %}x {{ s }}{% endfilter %}",
    "{% filter replace('x', 'y')|upper %}x {{ s }}{% endfilter %}",
    "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}",
    "{% with q = 1, r = a %}{{ q }}{{ r }}{% endwith %}{{ q }}",
    "{% with a = 1, b = a %}{{ b }}{% endwith %}",
    "{% generation %}x{{ a }}{% set q = 1 %}{% endgeneration %}{{ q }}",
    "{% print a, b %}",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% import 'x' as y %}",
    "{% block q %}in{{ a }}{% endblock %}",
    "{% do l.append(1) %}",
    "{% autoescape false %}{{ html }}{% endautoescape %}",
    "{% for u in users %}{{ u.name }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{%for x in l%}{{x}}{%endfor%}",
    "{%- for x in l -%}\n {{ x }} \n{%- endfor -%}",
    "{{ '{{' }} {{ \"}}\" }} {{ '%}' }}",
    "{{ {'a': {'b': 1}} }}",
    "{{ {'a': {'b': 1}}.a.b }}",
    "{{ a }}{{ 'x' if a else }}",
    "{{ a if }}",
    "{% if a is defined and a is not none and a > 5 %}ok{% endif %}",
    "{% if 'x' in d and d['x'] == 1 %}ok{% endif %}",
    "{% for m in users[::-1] %}{{ m.name }}{% set idx = loop.index0 %}{{ idx }}{% endfor %}",
    "{% set out = [] %}{% set out = out + [1] %}{{ out }}",
    "{% set x = namespace(l=[]) %}{% for i in l %}{% set x.l = x.l + [i * 2] %}{% endfor %}{{ x.l }}",
    "{% set joined = joiner(', ') %}{% for x in l %}{{ joined() }}{{ x }}{% endfor %}",
    "{% set c = cycler('a', 'b') %}{% for x in l %}{{ c.next() }}{{ c.current }}{% endfor %}{{ c.reset() }}{{ c.current }}",
    "{%- set x = 'a' -%}\n\n{{- x }}\n  {#- note -#}  \n{{ x -}} \n",
    "line1\n  {% set x = 1 %}\nline2\n\t{%- set y = 2 -%}\t\nline3",
    "{{ 1 }}\n{% if true %}\n{% if true %}\nx\n{% endif %}\n{% endif %}\n",
    "{% if true %}  \n x{% endif %}",
    "x{% if true %}\n\ny{% endif %}\n\nz",
    "\u3000{%- if true %}x{% endif %}",
    "é {% set ñ = 'v' %}{{ ñ }}",
    "{{ ''.join([]) }}{{ [] and 1 }}{{ {} or 'e' }}",
    "{{ s.split(',')[0].strip().lower().replace('h', 'J') }}",
    "{{ (users | selectattr('on') | list)[0]['name'] }}",
    "{{ users[0].name if users and users[0].name is string else 'anon' }}",
    "{{- 'a' }} {{ 'b' -}}",
    "{{ a|string|length + 1 }}",
    "{{ raise_exception('bad ' ~ a) }}",
    "{% if messages %}{% endif %}{{ messages is defined }}",
    "{% set content %}\n  x\n{% endset %}\n[{{ content }}]",
    "{{ 'a\n b' }}",
    "{% for a in [1,2] %}{% for b in [3,4] %}{% if b == 3 %}{% continue %}{% endif %}{{ a }}{{ b }} {% endfor %}{% endfor %}",
    "{% for x in [1,2,3] %}{% if x == 2 %}{% set y = x %}{% endif %}{{ y }}|{% endfor %}",
    "{% macro a1() %}{{ b1() }}{% endmacro %}{% macro b1() %}B{% endmacro %}{{ a1() }}",
    "{% if a %}{% macro inif() %}I{% endmacro %}{% endif %}{{ inif() }}",
    "{{ '%s' | format(s) }}{{ '%-8s|' | format('x') }}",
]

SNIPPETS = ["{{ " + e + " }}" for e in EXPRESSIONS] + TEMPLATES
