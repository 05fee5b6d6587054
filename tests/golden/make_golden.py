#!/usr/bin/env python3
"""Writes the golden files under data/. See README.md for what they hold.

    python3 make_golden.py --text tinyshakespeare.txt

The models part needs torch, transformers, tokenizers, numpy and safetensors; the tokenizers part
tokenizers; the chat part transformers and jinja2. Everything is seeded.
"""
import argparse
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BARD = os.path.join(HERE, "..", "..", "examples", "models", "bard", "hf")
PARTS = ("models", "tokenizers", "chat")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", default=os.path.join(HERE, "data"))
    parser.add_argument("--bard", default=BARD, help="the folder of bard's weights")
    parser.add_argument("--text", help="tinyshakespeare.txt; the tokenizers part trains on it")
    args = parser.parse_args()
    if "models" in args.parts:
        import golden_models
        golden_models.make_models(args.out)
        golden_models.make_bard(args.out, args.bard)
    if "tokenizers" in args.parts:
        if not args.text:
            parser.error("the tokenizers part needs --text")
        import golden_tokenizers
        golden_tokenizers.make(args.out, args.bard, args.text)
    if "chat" in args.parts:
        import golden_chat
        golden_chat.make(args.out, args.bard)


if __name__ == "__main__":
    sys.path.insert(0, HERE)
    main()
