"""Strings that tokenizers get wrong (encoded by hf_vectors.py)."""
import random
import re
import unicodedata

HAND = r"""
|Hello, world!|hello|HELLO|What is in this picture?|这张图片里有什么？|图中有几个红色的圆形？
|Read the text. 请读出图中的文字。|a|é|e\u0301|\u00e9 e\u0301 E\u0301|ﬁne ﬂow|Å \u212b A\u030a
|\u1e9b\u0323|\u0344|\u0958|\u2126 \u03a9|\uac00 \u1100\u1161|\u1100\u1161\u11a8|한국어 텍스트
|Ａｆｕｌｌｗｉｄｔｈ１２３|don't|DON'T|I'm you're we've he'll she'd it's|'S 'T 'RE 'VE 'M 'LL 'D 'x|''s
|can’t|o'clock 'tis|İstanbul ı I|ſ 's 'ſ|straße STRASSE|ǅ ǆ Ǆ
|1|12|123|1234567890|3.14159|1,000,000|0x1F|１２３|٣٤٥|Ⅷ ⅷ ½ ²³ ₄ ①|१२३|一二三|2024-11-22T10:00:00Z|1e-5
| |  |   |    |        |\t|\t\t|\n|\n\n|\r\n|\r\n\r\n|\r|\n \n|  \n|\n  |  \n  x| \t \n \t |a \n b
|a  b|a   b|a\tb|a\t\tb|a \tb|trailing   |   leading|x\n\n\ny|x \n\n y|x\r\ny|x\r\ry|end.\n|end.\r\n\r\n
|\u00a0|\u00a0a|a\u00a0\u00a0b|\u2003em|\u3000全角|\u200b|zero\u200bwidth|\u2028|\u2029x|\ufeffbom|\u0085nel|\u180e
|.|...|!!!|?!|,|;:|--|—|“quoted”|「引号」|（括号）|，。！？|a.b|a,b|(a)|[x]|{y}|<z>|a/b\\c|a_b|__init__|#tag|@me|$5|50%|a&b|a=b|a+b|a|"q"
|.\n|..\r\n|!\n\nx|;\t|) {\n  return;\n}| .| ..| , x|  .|,\n\n|a !|!a|! a|---\n---|* item\n* item\n|```c\nint x = 1;\n```
|😀|👍🏽|👨‍👩‍👧‍👦|🏳️‍🌈|🇨🇳🇩🇪|❤️|☺|1️⃣|a😀b|😀😀😀|🧑🏿‍🚀 go|🏴󠁧󠁢󠁥󠁮󠁧󠁿
|नमस्ते|தமிழ்|ไทย ภาษา|العربية ١٢٣|עברית|Ελληνικά|Русский текст|ქართული|Հայերեն|မြန်မာ|ខ្មែរ|བོད་ཡིག|ꦗꦮ|日本語テキスト|かな カナ|ｶﾅ|繁體字|𠀀𠀁 rare|𝐀𝑏𝟘|𐍈|𒀀
|Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢|q\u0307\u0323|q\u0323\u0307|a\u0315\u0300\u05ae\u0300b|\u0301|\u0301a| \u0301|1\u0301|.\u0301|\n\u0301|你\u0301
|\u0000|a\u0000b|\u0001\u0002|\u001b[31mred\u001b[0m|\u007f|\u0080\u009f|\ufffd|\ufffe\uffff|\U0010ffff|\ue000|\u00ad soft|\u061c|\u202eabc\u202c
|<|im_start|>|<|endoftext|>|<|im_start|>user\nhi<|im_end|>\n|<|image_pad|>|<|vision_start|><|image_pad|><|vision_end|>|<|video_pad|> x
|a<|im_end|>b|<|im_end|><|im_end|>|<|im_end|| <|im_end|> |<|IM_END|>|<|im_end |>|<tool_call>\n{}\n</tool_call>|<tool_response>|<think>x</think>|<think
|<|box_start|>(1,2)<|box_end|>|<|object_ref_start|>x<|object_ref_end|>|<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>|<|file_sep|>|<|quad_start|>|<|vision_pad|>|<|repo_name|>
|<|im_start|<|im_end|>|<|<|im_end|>|>|e\u0301<|im_end|>\u0301|<|im_\u200bend|>|＜|im_end|＞|  <|im_end|>  \n|<tool_call|tool_call>|</think>
|[{"bbox_2d": [10, 20, 300, 400], "label": "红色的圆"}]|{"a":1,"b":[true,null]}|<b>&amp;</b>|https://example.org/a?b=c&d=%20#e|user@host.net|C:\\path\\x|/usr/lib|a->b|x==y&&z||
|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa|abababababababab|的的的的的的|thethethethe|the the the| the| The|THE|there|theres|ttthhheee|。。。。|，，|——|……
|El niño comió piñas.|Être ou ne pas être|Größe übermäßig|Tiếng Việt có dấu|Türkçe ğüşiöç|Polski żółć|Čeština řeřicha|Íslenska þæð
"""


ESCAPE = re.compile(r"\\(?:u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt\\])")


def _hand():
    """The pieces of HAND: separated by bars that are part of neither `<|` nor `|>`."""
    marks = ("<|", "|>")
    pieces = []
    for line in HAND.split("\n"):
        held = line.removeprefix("|")
        for k, mark in enumerate(marks):
            held = held.replace(mark, chr(0xE100 + k))
        for piece in held.split("|"):
            for k, mark in enumerate(marks):
                piece = piece.replace(chr(0xE100 + k), mark)
            pieces.append(ESCAPE.sub(
                lambda m: m.group(0).encode().decode("unicode_escape"), piece))
    return pieces


def _random(count):
    """Seeded mixtures over the alphabets that share a regex branch or meet at its borders."""
    rng = random.Random(11)
    alphabets = ["abcdefghijklmnopqrstuvwxyz", "theinreds ", "ABC'stmdl' ", "0123456789 .,",
                 " \t\n\r", " \n", "的一是红色圆形图片上有什么", "，。！？、 ", "!?.,;:-_()[]{}<>|/\\\"'",
                 "éèüñçßøå", "\u0301\u0300\u0323ae o", "😀👍🏽\u200d❤\ufe0f🇨🇳", "абвгд ", "ㄱ가각\u1100\u1161",
                 "\u0001\u007f\u00a0\u2028\u3000", "١٢Ⅷ½²①１", "नमस्ते ", "𠀀𝟘𐍈"]
    for _ in range(count):
        kinds = rng.sample(alphabets, rng.randrange(1, 5))
        yield "".join(rng.choice(rng.choice(kinds)) for _ in range(rng.randrange(1, 40)))


def strings():
    """All strings, each once, "" first; none holds a lone surrogate."""
    every = ["", *(p for p in _hand() if p), *_random(260)]
    every += [chr(c) for c in (*range(0x20), *range(0x7f, 0xa0))]
    every += [unicodedata.normalize("NFD", s) for s in ("Zürich Åre señor", "각하 한글", "ά ở ǘ")]
    return list(dict.fromkeys(every))
