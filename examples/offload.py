#!/usr/bin/env python3
"""A language model whose attention and router run here and whose experts run on servers (docs/offload.md).

  examples/offload.py                                     the whole way with a tiny model that is made for it: host-model, a server, the same tokens
  examples/offload.py --model DIR --servers URL [URL ...] a model of yours, whose experts those servers host (scripts/host-model)

Needs transformers and torch."""
import argparse
import os
import subprocess
import sys
import tempfile
import time

import torch
import transformers

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
try:
    import expertd
except ImportError:  # not installed: from the source tree
    sys.path.insert(0, os.path.join(ROOT, "client", "python"))
    import expertd


def with_experts_at(folder, where):
    """The model of a folder, whose experts are never loaded here."""
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = getattr(transformers, config.architectures[0])

    class Remote(kind):
        _keys_to_ignore_on_load_unexpected = [r"\.experts\."]

        def __init__(self, config):
            super().__init__(config)
            expertd.offload_experts(self, where)
    return Remote.from_pretrained(folder).eval()


def generate(model, prompt, count):
    with torch.no_grad():
        tokens = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, do_sample=False)
    return tokens[:, prompt.shape[1]:]


def tiny():
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(1)
        model = transformers.OlmoeForCausalLM(transformers.OlmoeConfig(
            vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
            num_experts=8, num_experts_per_tok=2, eos_token_id=None)).eval()
        model.save_pretrained(f"{folder}/model")
        prompt = torch.randint(1, 96, (2, 7))
        expected = generate(model, prompt, 16)
        # On a box with memory (here: this one)
        port = expertd.group.free_port()
        endpoint = f"tcp://127.0.0.1:{port}"
        subprocess.run([f"{ROOT}/scripts/host-model", f"{folder}/model", "--out", f"{folder}/expertd.yaml", "--name", f"offload-{port}",
                        "--listen", endpoint, "--memory", "256", "--class", "cpu"], check=True)
        programs = os.environ.get("EXPERTD_BIN_DIR", f"{ROOT}/build/bin")
        server = subprocess.Popen([f"{programs}/expertd", "serve", "--config", f"{folder}/expertd.yaml", f"--server-run-dir={folder}/run"],
                                  stderr=subprocess.DEVNULL)
        try:
            client = expertd.Client(endpoint, timeout=300, retry_for=300)
            while client.ping().experts_alive < 16:
                time.sleep(0.1)
            # On this one
            light = with_experts_at(f"{folder}/model", endpoint)
            print(light)
            print(f"{sum(p.numel() for p in model.parameters()):,} parameters, of them here {sum(p.numel() for p in light.parameters()):,}")
            tokens = generate(light, prompt, 16)
        finally:
            server.terminate()
            server.wait()
        if not torch.equal(tokens, expected):
            sys.exit(f"{tokens.tolist()} is not {expected.tolist()}")
        print("the same tokens as with all of it here:", tokens[0].tolist())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a checkpoint, with its tokenizer")
    parser.add_argument("--servers", nargs="+", help="endpoints of the servers that host its experts")
    parser.add_argument("--prompt", default="The capital of France is")
    parser.add_argument("--tokens", type=int, default=32, help="to generate (32)")
    options = parser.parse_args()
    if options.model is None:
        return tiny()
    if not options.servers:
        parser.error("--servers is missing")
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    model = with_experts_at(options.model, options.servers)
    prompt = tokenizer(options.prompt, return_tensors="pt").input_ids
    print(options.prompt + tokenizer.decode(generate(model, prompt, options.tokens)[0]))


if __name__ == "__main__":
    main()
