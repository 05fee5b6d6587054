"""Golden encodings and decodings: bard's tokenizer and three small ones in the known styles."""
import json
import os
import random

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

import fuzz_text

LLAMA3_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN_REGEX = LLAMA3_REGEX.replace("{1,3}", "")
FUZZ_STRINGS = 700
RANDOM_SEQUENCES = 250


def train_model(texts, vocab, pre_tokenizer, normalizer=None):
    tok = Tokenizer(models.BPE())
    if normalizer:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre_tokenizer
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return tok


def split_style(regex):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(regex), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)])


def gpt2_style(texts):
    """ByteLevel does the splitting; added tokens in every variant of stripping."""
    tok = train_model(texts, 900, pre_tokenizers.ByteLevel(add_prefix_space=False))
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.add_special_tokens([
        AddedToken("<|endoftext|>", special=True),
        AddedToken("<mask>", special=True, lstrip=True),
        AddedToken("<right>", special=True, rstrip=True),
        AddedToken("<both>", special=True, lstrip=True, rstrip=True)])
    tok.add_tokens([
        AddedToken("<tool>", normalized=False),
        AddedToken("wherefore", normalized=False, single_word=True),
        AddedToken("<a><b>", normalized=False),
        AddedToken("<a>", normalized=False)])
    return tok


def llama3_style(texts):
    """A begin-of-text template, and words in the vocabulary that no merge reaches."""
    tok = train_model(texts, 1000, split_style(LLAMA3_REGEX))
    spec = json.loads(tok.to_str())
    # Without their merges, these entries are found only because ignore_merges looks words up whole.
    spec["model"]["merges"] = spec["model"]["merges"][:-250]
    spec["model"]["ignore_merges"] = True
    tok = Tokenizer.from_str(json.dumps(spec))
    tok.add_special_tokens([AddedToken(f"<|{name}|>", special=True, normalized=False) for name in
                            ("begin_of_text", "end_of_text", "start_header_id", "end_header_id",
                             "eot_id", "reserved_special_token_0")])
    begin = tok.token_to_id("<|begin_of_text|>")
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(
            single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
            special_tokens=[("<|begin_of_text|>", begin)])])
    return tok


def qwen_style(texts):
    """NFC before splitting; added tokens both before and after normalization."""
    tok = train_model(texts, 900, split_style(QWEN_REGEX), normalizers.NFC())
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.add_special_tokens([AddedToken(f"<|{name}|>", special=True, normalized=False) for name in
                            ("endoftext", "im_start", "im_end")])
    tok.add_tokens([
        AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False),
        AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False),
        AddedToken("na\u00efve", normalized=True), AddedToken("\u00c5ngstr\u00f6m", normalized=True,
                                                             lstrip=True)])
    return tok


def old_merges(path):
    """Rewrites merges as strings, the form of files from before tokenizers 0.20."""
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    spec["model"]["merges"] = [" ".join(pair) for pair in spec["model"]["merges"]]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(spec, file, ensure_ascii=False)


def encode_cases(tok, strings):
    for text in strings:
        ids = tok.encode(text, add_special_tokens=False).ids
        special = tok.encode(text, add_special_tokens=True).ids
        yield decode_case(tok, {"text": text, "ids": ids} |
                          ({"ids_special": special} if special != ids else {}))


def decode_case(tok, case):
    plain = tok.decode(case["ids"], skip_special_tokens=False)
    skipped = tok.decode(case["ids"], skip_special_tokens=True)
    if plain != case.get("text"):
        case["decoded"] = plain
    if skipped != plain:
        case["decoded_skip"] = skipped
    return case


def random_ids(tok, rng):
    """Sequences that no text gives: cut characters, stray bytes, special tokens, unknown ids."""
    size = tok.get_vocab_size()
    vocab = tok.get_vocab()
    short = sorted(i for t, i in vocab.items() if len(t) == 1)
    for n in range(RANDOM_SEQUENCES):
        pool = (range(size), short, range(size - 8, size + 3))[n % 3]
        yield [rng.choice(pool) for _ in range(rng.randint(1, 14))]
    for text in ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u4f60\u597d", "e\u0301\u00e9"):
        ids = tok.encode(text, add_special_tokens=False).ids
        for i in range(len(ids)):
            yield ids[:i] + ids[i + 1:]
            yield ids[i:]


def write_lines(path, cases):
    count = 0
    with open(path, "w", encoding="ascii") as file:
        for case in cases:
            file.write(json.dumps(case, separators=(",", ":")) + "\n")
            count += 1
    return count


def make(data, bard, text):
    with open(text, encoding="utf-8") as file:
        play = file.read()[:250000]
    texts = [play] + [fuzz_text.MULTILINGUAL] * 12
    toks = {"bard": Tokenizer.from_file(os.path.join(bard, "tokenizer.json")),
            "gpt2": gpt2_style(texts), "llama3": llama3_style(texts), "qwen": qwen_style(texts)}
    for name, tok in toks.items():
        folder = os.path.join(data, "tokenizers", name)
        os.makedirs(folder, exist_ok=True)
        if name != "bard":
            path = os.path.join(folder, "tokenizer.json")
            tok.save(path, pretty=False)
            if name == "gpt2":
                old_merges(path)
            # What is on disk is what must agree, so that is what is used.
            tok = Tokenizer.from_file(path)
        added = [t.content for _, t in sorted(tok.get_added_tokens_decoder().items())]
        strings = fuzz_text.strings(random.Random(f"strings {name}"), FUZZ_STRINGS, added)
        encoded = write_lines(os.path.join(folder, "encode.jsonl"), encode_cases(tok, strings))
        ids = random_ids(tok, random.Random(f"ids {name}"))
        decoded = write_lines(os.path.join(folder, "decode.jsonl"),
                              (decode_case(tok, {"ids": i}) for i in ids))
        print(f"{name}: vocabulary {tok.get_vocab_size()}, {encoded} strings, {decoded} sequences")
