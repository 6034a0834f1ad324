"""Prompts of the parity fixtures: prompts as people type them, and prompts that are hard for tokenizers.

`tokenizer_prompts(seed)` returns the list on which ids must be equal; the small vocabularies are learnt from
`training_text`. Everything is drawn from one seeded generator.
"""

import random
import unicodedata

SUBJECTS = """hobbit robot cat wizard knight fox dragon girl boy astronaut pencil box teapot castle
backpack sneaker violin lighthouse mermaid samurai pirate owl hedgehog butterfly grandmother""".split()

ADJECTIVES = """red blue fluffy ancient tiny gigantic cheerful melancholy golden translucent wooden
steampunk watercolour photorealistic hand-painted soft-focus weathered bioluminescent""".split()

PLACES = [
    "at the beach",
    "in the snow",
    "in a library",
    "on the Moon",
    "under the sea",
    "in Tokyo at night",
    "riding a bicycle",
    "reading the newspaper",
    "wearing robes",
    "eating an ice-cream",
    "on a mountain top",
    "in a field of sunflowers",
    "beside the Eiffel Tower",
    "in front of a waterfall",
    "holding an umbrella",
]

STYLES = ["oil painting", "digital art", "35mm photograph", "8k, highly detailed", "Studio Ghibli style", "line art"]

ACCENTED = """café naïve façade jalapeño Zürich Ångström smörgåsbord crème brûlée Ærøskøbing Łódź Dvořák
İstanbul ıssız Straße ŒUVRE œuvre Ǆungla ﬁsh ﬂower Việt Nam Σίσυφος ΟΔΥΣΣΕΥΣ όμορφη привет ЁЖИК мир""".split()

SCRIPTS = [
    "一只穿着长袍的猫",
    "東京の夜景、ロボット",
    "ｈａｌｆｗｉｄｔｈ ＦＵＬＬ",
    "ﾊﾝｶｸ ｶﾅ",
    "로봇이 책을 읽는다",
    "कमल का फूल",
    "हिन्दी",
    "ภาษาไทย แมว",
    "قطة ترتدي رداء",
    "חתול קורא ספר",
    "ქართული",
    "ᎣᏏᏲ",
    "𝔣𝔞𝔫𝔠𝔶 𝕥𝕖𝕩𝕥",
    "𝟙𝟚𝟛 ① ② Ⅷ ½ ²",
    "٣٤٥ ४५६",
    "𐍈𐌰𐌿",
    "ＡＢＣ１２３",
]

EMOJI = ["🐱", "👩‍🚀", "👍🏽", "🏳️‍🌈", "🇩🇪", "❤️", "☃", "👨‍👩‍👧‍👦", "1️⃣", "🫠", "™", "©"]

CONTROLS = [
    "\t",
    "\n",
    "\r\n",
    "\x00",
    "\x07",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\xa0",
    "\u200b",
    "\u200d",
    "\u200e",
    "\u2028",
    "\u2003",
    "\u3000",
    "\ufeff",
    "\ufffd",
    "\u00ad",
    "\u202e",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1f",
    "\ue000",
    "\u180e",
]

APOSTROPHES = [
    "don't",
    "it's",
    "I'll",
    "we've",
    "they're",
    "I'm",
    "he'd",
    "DON'T",
    "rock 'n' roll",
    "the cats' toys",
    "'s",
    "'S",
    "o'clock",
    "it’s",
    "l'été",
    "''",
    "'re're",
    "can't've",
    "y'all'd've",
    "'tis",
    "x'T",
    "''s",
    "'l",
    "'ll'll",
]

PUNCTUATION = [
    "!",
    "!!",
    "!!!",
    "...",
    "?!",
    "--",
    "—",
    "–",
    "((red:1.3))",
    "[cat|dog]",
    "{a,b}",
    "<lora:x:0.8>",
    "a/b\\c",
    "#1",
    "$5.00",
    "50%",
    "e=mc^2",
    "~",
    "`code`",
    "&amp;",
    "&lt;b&gt;",
    "_under_score_",
    "**bold**",
    "@user",
    "a.b.c",
    "“quoted”",
    "„tief“",
    "«guillemets»",
    "、。",
    "！？",
    "…",
    "·",
    "※",
    "+-*/=",
    "::",
    ";)",
    "a!b",
    "cat!",
    "!cat",
    "! !",
    "<|endoftext|>",
    "<|startoftext|>",
    "<|ENDOFTEXT|>",
    "cat<|endoftext|>dog",
    "<|endoftext|> dog",
    "<|startoftext|>a",
    "< | endoftext | >",
    "</w>",
    "cat</w>",
    "Ġcat",
    "[PAD]",
    "cat !dog! fish",
]

DIGITS = [
    "1",
    "42",
    "007",
    "1234567890",
    "3.14",
    "1,000,000",
    "2nd",
    "x2",
    "10x10",
    "1990s",
    "b2b",
    "4k",
    "0x1F",
    "1e-5",
]


def plain_prompt(rng):
    """One prompt as a user of an image model writes it."""
    parts = ["a", rng.choice(ADJECTIVES), rng.choice(SUBJECTS), rng.choice(PLACES)]
    if rng.random() < 0.6:
        parts += [",", rng.choice(STYLES)]
    text = " ".join(parts).replace(" ,", ",")
    return rng.choice([text, text, text.upper(), text.title(), f"  {text}  ", text + ".", text + " !"])


def random_unicode(rng, length):
    """Characters from anywhere in the given planes, without surrogates."""
    ranges = [
        (0x20, 0x7F),
        (0xA0, 0x24F),
        (0x300, 0x36F),
        (0x370, 0x52F),
        (0x590, 0x6FF),
        (0x900, 0xDFF),
        (0x1E00, 0x1FFF),
        (0x2000, 0x2BFF),
        (0x3000, 0x30FF),
        (0x4E00, 0x4FFF),
        (0xAC00, 0xAD00),
        (0xFB00, 0xFB4F),
        (0xFF00, 0xFFEF),
        (0x1F300, 0x1FAFF),
        (0x1D400, 0x1D7FF),
    ]
    return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(length))


def tokenizer_prompts(seed, count=2400):
    """The `count` different prompts on which every tokenizer must give the same ids, special cases first."""
    rng = random.Random(seed)
    out = [
        "",
        " ",
        "   \n\t ",
        "a",
        "A",
        ".",
        "cat",
        " cat",
        "cat ",
        "cat  cat",
        "a" * 300,
        "word " * 200,
        " ".join(rng.choice(SUBJECTS + ADJECTIVES) for _ in range(200)),
        "🐱" * 100,
        "é" * 90,
        "!" * 100,
        "! " * 100,
    ]
    specials = ACCENTED + SCRIPTS + EMOJI + CONTROLS + APOSTROPHES + PUNCTUATION + DIGITS
    for piece in specials:
        out += [unicodedata.normalize(form, piece) for form in ("NFC", "NFD", "NFKC")]
        out += [f"a cat {piece} dog", f"cat{piece}dog", f"{piece}{piece}", f"{piece} cat", piece.upper(), piece.lower()]
    out = dict.fromkeys(out)
    while len(out) < count - 700:
        out[plain_prompt(rng)] = None
    while len(out) < count - 350:
        pieces = [rng.choice(rng.choice([SUBJECTS, specials])) for _ in range(rng.randint(2, 14))]
        out[rng.choice(["", " ", ", "]).join(pieces)] = None
    while len(out) < count:
        out[random_unicode(rng, rng.randint(1, 40))] = None
    return list(out)


def training_text(seed, lines=1500):
    """Text for the small vocabularies: ordinary prompts with a share of accents, scripts and marks."""
    rng = random.Random(seed)
    out = []
    for _ in range(lines):
        text = plain_prompt(rng)
        if rng.random() < 0.3:
            text += " " + rng.choice(ACCENTED + SCRIPTS + EMOJI + APOSTROPHES + DIGITS)
        out.append(text)
    return out
