"""The training text: its split, its tokenizer, and its many spellings."""
import json

import numpy as np

SPLIT_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+")
END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = [END_OF_TEXT, IM_START, IM_END]


def read_split(path):
    """Returns (train, held_out): the first nine tenths of the characters, and the rest."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    cut = int(len(text) * 0.9)
    return text[:cut], text[cut:]


def train_tokenizer(text, vocab, path):
    """Trains the byte-level BPE on the training split alone and writes tokenizer.json."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT_REGEX), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=SPECIALS, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tok.train_from_iterator([text], trainer)
    tok.save(path, pretty=False)


class SampledText:
    """The training text, cut into tokens differently each time it is asked for.

    BPE dropout skips each merge with some probability, so that the model sees many spellings of
    each word and cannot learn the text by heart. A word's spellings are drawn once, from the seed;
    a pass over the text then picks one for each occurrence.
    """
    SPELLINGS = 24

    def __init__(self, tok, text, drop, seed):
        self.rng = np.random.default_rng(seed)
        self.tok = tok
        self.words = {}
        speeches = [s for s in text.split("\n\n") if s]
        self.plain = [self._word_ids(s + "\n\n") for s in speeches]
        self.bare = [self._word_ids(s.strip()) for s in speeches]
        self.newline = self._word_ids("\n")
        self.eot, self.start, self.end = (np.array([self._word(s)]) for s in SPECIALS)
        self._build_spellings(drop)

    def _word(self, word):
        return self.words.setdefault(word, len(self.words))

    def _word_ids(self, text):
        pieces = self.tok.pre_tokenizer.pre_tokenize_str(text)
        return np.array([self._word(piece) for piece, _ in pieces], dtype=np.int64)

    def _build_spellings(self, drop):
        model = json.loads(self.tok.to_str())["model"]
        ranks = {tuple(m): i for i, m in enumerate(model["merges"])}
        spell = lambda word, p: [model["vocab"][s] for s in self._merge(list(word), ranks, p)]
        flat, lengths = [], []
        for word in self.words:
            fixed = [self.tok.token_to_id(word)] if word in SPECIALS else spell(word, 0.0)
            for k in range(self.SPELLINGS):
                # Spelling 0 is always the tokenizer's own.
                ids = fixed if k == 0 or word in SPECIALS or drop == 0 else spell(word, drop)
                flat.extend(ids)
                lengths.append(len(ids))
        self.flat = np.array(flat, dtype=np.int64)
        self.lengths = np.array(lengths, dtype=np.int64)
        self.offsets = np.cumsum(self.lengths) - self.lengths

    def _merge(self, parts, ranks, drop):
        while len(parts) > 1:
            pairs = [(ranks[p], i) for i, p in enumerate(zip(parts, parts[1:])) if p in ranks]
            if drop:
                keep = self.rng.random(len(pairs)) >= drop
                pairs = [p for p, k in zip(pairs, keep) if k]
            if not pairs:
                break
            _, i = min(pairs)
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        return parts

    def _tokens(self, chunks, sampled):
        """Spells a list of word arrays; `sampled` is the share of words not spelt canonically."""
        word = np.concatenate(chunks)
        choice = self.rng.integers(self.SPELLINGS, size=len(word))
        choice = np.where(self.rng.random(len(word)) < sampled, choice, 0)
        row = word * self.SPELLINGS + choice
        size = self.lengths[row]
        first = np.cumsum(size) - size
        return self.flat[np.repeat(self.offsets[row] - first, size) + np.arange(size.sum())]

    def play(self, sampled=1.0, ends=0.02):
        """The text as it stands, now and then with an end of text after a speech."""
        stop = self.rng.random(len(self.plain)) < ends
        chunks = []
        for speech, last in zip(self.plain, stop):
            chunks.append(speech)
            if last:
                chunks.append(self.eot)
        return self._tokens(chunks, sampled)

    def chat(self, sampled=1.0):
        """The same speeches as chat turns: one speech asks, one to three speeches answer."""
        chunks, at, turn = [], int(self.rng.integers(4)), 0
        while at < len(self.plain):
            if turn % 6 == 0:
                chunks.append(self.eot)
            count = 1 if turn % 2 == 0 else int(self.rng.integers(1, 4))
            group = range(at, min(at + count, len(self.plain)))
            chunks.append(self.start)
            chunks += [self.plain[i] for i in group[:-1]] + [self.bare[group[-1]]]
            chunks += [self.end, self.newline]
            at, turn = at + count, turn + 1
        return self._tokens(chunks, sampled)
