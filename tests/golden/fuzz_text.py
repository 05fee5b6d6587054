"""Text that tokenizers get wrong: scripts, marks, joiners, controls, runs of blanks, digits."""

MULTILINGUAL = "\n".join((
    "The quick brown fox jumps over the lazy dog, doesn't it? I'll say we've 1,024 reasons.",
    "Der schnelle braune Fuchs springt über den faulen Hund; Mädchen hören große "
    "Töne.",
    "Le cœur déçu mais l'âme plutôt naïve, Louÿs rêva de crapaüter en canoë.",
    "El pingüino comió ñoquis, ¿verdad? ¡Sí, señor!",
    "Съешь же ещё этих мягких булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "今天天气很好，我们去公园散步吧。你好，世界！",
    "いろはにほへと アイウエオ、東京は晴れです。",
    "한국어 문장은 띄어쓰기가 중요합니다.",
    "مرحبا بالعالم، كيف حالك؟ السَّلامُ",
    "שלום עולם, מה שלומך?",
    "नमस्ते दुनिया, आप कैसे हैं? १२३",
    "สวัสดีชาวโลก วันนี้อากาศดี",
    "Tiếng Việt có dấu: thủ đô Hà Nội rất đẹp.",
    "\U0001f600 \U0001f680 \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 "
    "\u2764\ufe0f \U0001f1eb\U0001f1f7 \U0001f44d\U0001f3fd",
    "for (int i = 0; i < n; ++i) {\n\treturn a[i] != b[i] ? x->y : *p++;\n}\n",
    "{\"name\": \"f\", \"arguments\": {\"city\": \"Paris\", \"days\": 3.14e-10}}",
)) + "\n"

# Inclusive ranges of code points to draw letters from.
RANGES = ((0x20, 0x7e), (0xa0, 0xff), (0x100, 0x24f), (0x370, 0x3ff), (0x400, 0x4ff),
          (0x530, 0x58f), (0x590, 0x5ff), (0x600, 0x6ff), (0x900, 0x97f), (0xe00, 0xe7f),
          (0x10a0, 0x10ff), (0x1200, 0x137f), (0x1e00, 0x1fff), (0x2000, 0x206f),
          (0x2070, 0x218f), (0x2190, 0x22ff), (0x2460, 0x24ff), (0x3000, 0x30ff),
          (0x4e00, 0x4fff), (0xac00, 0xadff), (0xf900, 0xfaff), (0xfe00, 0xfe0f),
          (0xff00, 0xffef), (0x10000, 0x1007f), (0x10400, 0x1044f), (0x1d400, 0x1d7ff),
          (0x1f300, 0x1f6ff), (0x1f900, 0x1f9ff), (0x20000, 0x200ff), (0xe0000, 0xe007f))
MARKS = ("\u0300\u0301\u0302\u0303\u0308\u030a\u0323\u0327\u0328\u0345"
         "\u05b0\u064b\u093c\u094d\u3099\u20dd\ufe0f\u1ab0")
BLANKS = (" ", "  ", "\t", "\n", "\r", "\r\n", "\n\n", "\u00a0", "\u2003", "\u3000", "\u2028",
          "\u2029", "\u0085", "\u200b", "\ufeff", "\u1680", "\x0b", "\x0c", "\x1c", "\x1f")
WORDS = ("I'm", "we'LL", "don't", "they'Ve", "it'S", "'tis", "o'er", "x'd'y", "'re", "\u2019s",
         "hello", "World", "naive", "na\u00efve", "nai\u0308ve", "caf\u00e9", "cafe\u0301",
         "\u00c5ngstr\u00f6m", "A\u030angstro\u0308m", "\u212bngstr\u00f6m", "wherefore",
         "Wherefore", "wherefores", "ROMEO", "JULIET:", "First Citizen:", "stra\u00dfe",
         "\u0130stanbul", "\u017ft", "\ufb01sh", "1234567890", "3.14159", "1,000,000", "0x1F",
         "\u0663\u0664\u0665", "\u00bd", "\u2167", "\u00b2", "snake_case", "camelCase", "a.b.c",
         "e-mail@x.org", "https://a.b/c?d=e&f#g", "#!/bin/sh", "--", "...", "?!", "$5.00", "100%",
         "\u4f60\u597d", "\u4e16\u754c\u3002", "\u3053\u3093\u306b\u3061\u306f", "\uc548\ub155",
         "\u1112\u1161\u11ab", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0e19\u0e49\u0e33",
         "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\u2764\ufe0f",
         "\U0001f1eb\U0001f1f7", "1\ufe0f\u20e3", "\u0344", "\u0958", "\u2126", "\uf900", "\ufffd")
FIXED = (
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", " \n", "\n ", " \n \n ", "\t", "\t\t\n", "\r\n",
    "\r\r", " a", "a ", "a  b", "a   b", "a \n b", "a\n\n  b", "  a  ", "\x00", "\x00\x01\x7f",
    "\x80\x9f", "'", "''", "'s", "'S", " 's", "it's", "IT'S", "it''s", "'\u017f", "'ll'", "a'b",
    "1", "12", "123", "1234", "12345", "1 2 3", "1a2b", "a1", "1.5", "\u0661\u0662\u0663\u0664",
    "\u4e00\u4e8c", "\u00e9", "e\u0301", "\u0301", " \u0301", "a\u0301\u0302\u0323", "\u1e69",
    "s\u0323\u0307", "s\u0307\u0323", "\uac00", "\u1100\u1161", "\ufb01", "\u200d", "\ufeffa",
    "a\u00a0b", "\u3000\u3000a", "a\u2003 b", " \u00a0 ", "_a", "a_b", "!a", "!!a", " !a", "!\n",
    "!\r\na", "!\n\n\na", ":\n a", "\ud7ff\ue000", "\U0010ffff", "\ufffe", "\U0001f600" * 5,
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "=" * 40, " " * 37, "\n" * 19, "ab" * 40,
    "\u0130\u0131", "\u01c5", "\u02b0", "\u2160", "\u00aa\u00ba", "\u00b9\u2074", "\u2474",
)


def _letters(rng):
    low, high = rng.choice(RANGES)
    return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 8)))


def _any(rng):
    """Any code points at all, surrogates excepted, since no UTF-8 text holds them."""
    points = (rng.randrange(0x110000) for _ in range(rng.randint(1, 4)))
    return "".join(chr(p) for p in points if not 0xd800 <= p < 0xe000)


def _sentence(rng):
    lines = MULTILINGUAL.split("\n")
    line = rng.choice(lines)
    at = rng.randrange(len(line) + 1)
    return line[at:at + rng.randint(1, 30)]


def _piece(rng, added):
    kind = rng.random()
    if kind < 0.22:
        return rng.choice(WORDS)
    if kind < 0.40:
        return rng.choice(BLANKS) * rng.choice((1, 1, 1, 2, 3, 7))
    if kind < 0.55:
        return _letters(rng)
    if kind < 0.63:
        return rng.choice("aeiousz\u05d0\u0915\u304b ") + "".join(
            rng.choice(MARKS) for _ in range(rng.randint(1, 3)))
    if kind < 0.75:
        return _sentence(rng)
    if kind < 0.80:
        return "".join(chr(rng.randrange(0x20)) for _ in range(rng.randint(1, 3)))
    if kind < 0.85:
        return str(rng.randrange(10 ** rng.randint(1, 9)))
    if kind < 0.95:
        token = rng.choice(added)
        return rng.choice((token, " " + token, token + " ", token[:-1], f"  {token}\n", token * 2))
    return _any(rng)


def strings(rng, count, added):
    """At least `count` strings: fixed ones, each added token in places, the rest drawn."""
    out = list(FIXED) + list(WORDS)
    for token in added:
        out += [token, f"a{token}b", f"a {token} b", f"a  {token}\n\nb", token.upper(), token[:-1]]
    while len(out) < count:
        out.append("".join(_piece(rng, added) for _ in range(rng.randint(1, 9))))
    return list(dict.fromkeys(out))
