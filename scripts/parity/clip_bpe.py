"""CLIP's byte-pair encoding in plain Python: how vocabularies are learnt and how text is split.

`learn` makes `vocab.json` and `merges.txt` in CLIP's form from text: 256 byte symbols, the same 256 with the
end-of-word mark, one entry for each merge, then the two special tokens. `SlowTokenizer` encodes with these files in
plain Python, following the published algorithm (Radford et al., arXiv 2103.00020, and Sennrich et al., arXiv
1508.07909). It shares no code with the `tokenizers` library, so it checks the reference itself.
"""

import itertools
import unicodedata
from collections import Counter

import regex

BOS, EOS, END = "<|startoftext|>", "<|endoftext|>", "</w>"
PIECES = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")


def byte_symbols():
    """A printable character for each byte: the byte's own character if it is printable, else one from U+0100 up."""
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [b for b in range(256) if b not in printing]
    table = {b: chr(b) for b in printing}
    table.update({b: chr(256 + i) for i, b in enumerate(rest)})
    return table


BYTES = byte_symbols()


def normalise(text):
    """NFC, runs of white space to one space, lower case."""
    return regex.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).lower()


def symbols_of(piece):
    """The byte symbols of one piece, the last one marked as the end of a word."""
    out = [BYTES[b] for b in piece.encode("utf-8")]
    return [*out[:-1], out[-1] + END]


def join_pair(symbols, pair):
    """Every occurrence of `pair`, from left to right, joined to one symbol."""
    out, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


def learn(lines, num_merges):
    """Vocabulary (token to id) and merges (pairs, best first) learnt from `lines`."""
    counts = Counter(piece for line in lines for piece in PIECES.findall(normalise(line)))
    words = [(symbols_of(piece), n) for piece, n in sorted(counts.items())]
    merges = []
    for _ in range(num_merges):
        pairs = Counter()
        for symbols, n in words:
            for pair in itertools.pairwise(symbols):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = [(join_pair(symbols, best) if best[0] in symbols else symbols, n) for symbols, n in words]
    letters = list(BYTES.values())
    tokens = letters + [c + END for c in letters]
    for a, b in merges:
        if a + b not in tokens:
            tokens.append(a + b)
    tokens += [BOS, EOS]
    return {token: i for i, token in enumerate(tokens)}, merges


class SlowTokenizer:
    """Encodes a prompt with vocabulary and merges only."""

    def __init__(self, vocab, merges, max_length, pad, special):
        """`special`: the strings that are cut out of the text first, CLIP's own and the pad."""
        self.vocab, self.max_length, self.pad = vocab, max_length, pad
        self.ranks = {pair: i for i, pair in enumerate(merges)}
        self.special = regex.compile("|".join(regex.escape(s) for s in sorted(special, key=len, reverse=True)))

    def word(self, piece):
        """Ids of one piece: the best-ranked neighbouring pair is joined until no pair is left."""
        symbols = symbols_of(piece)
        while len(symbols) > 1:
            best = min(itertools.pairwise(symbols), key=lambda pair: self.ranks.get(pair, float("inf")))
            if best not in self.ranks:
                break
            symbols = join_pair(symbols, best)
        return [self.vocab.get(s, self.vocab[EOS]) for s in symbols]

    def pieces(self, text):
        """(piece, ids) in the order of the text; a special string is one piece."""
        out, at = [], 0
        for hit in [*self.special.finditer(text), None]:
            plain = text[at : hit.start() if hit else len(text)]
            out += [(p, self.word(p)) for p in PIECES.findall(normalise(plain))]
            if hit:
                out.append((hit.group(), [self.vocab[hit.group()]]))
                at = hit.end()
        return out

    def encode(self, text):
        """Ids with start, end and padding, cut to `max_length`."""
        ids = [i for _, piece in self.pieces(text) for i in piece][: self.max_length - 2]
        ids = [self.vocab[BOS], *ids, self.vocab[EOS]]
        return ids + [self.vocab[self.pad]] * (self.max_length - len(ids))

    def positions(self, text, word):
        """Token positions (the start token is 0) of each occurrence of `word` as whole pieces; None for an occurrence
        that is cut off."""
        wanted = [p for p, _ in self.pieces(word)]
        pieces, found = self.pieces(text), []
        starts = [1]
        for _, ids in pieces:
            starts.append(starts[-1] + len(ids))
        for i in range(len(pieces) - len(wanted) + 1):
            if [p for p, _ in pieces[i : i + len(wanted)]] == wanted:
                span = list(range(starts[i], starts[i + len(wanted)]))
                found.append(span if span[-1] < self.max_length - 1 else None)
        return found
