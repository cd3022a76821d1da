"""Answers a question from the text files of a folder (RAG) with LlamaIndex, and names its sources.

    python examples/llamaindex_rag.py docs/ "Which exit code means that the model was not found?"

Files are found by `HashingEmbedding`, which needs no download: it counts words and parts of words, so it finds a text by
the words that it shares with the question, not by its meaning. For that, give `Settings.embed_model` another embedding,
say `HuggingFaceEmbedding` of llama-index-embeddings-huggingface. Needs the extra `llamaindex` alone.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from llama_index.core import Settings, SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.node_parser import SentenceSplitter

from llamaindex_localllama import LocalLlama
from localllama import LocalLlamaError

# Words that stand in every English text say nothing about one.
EVERYDAY_WORDS = frozenset(
    re.findall(r"\w+", "a an and are as at be by for from how in is it its of on or that the to was what which")
)


class HashingEmbedding(BaseEmbedding):
    """The words of a text, and their parts of four letters, counted in `n_dimensions` places that a checksum chooses."""

    n_dimensions: int = 1024

    def _get_text_embedding(self, text: str) -> list[float]:
        vector = [0.0] * self.n_dimensions
        words = Counter(word for word in re.findall(r"\w+", text.lower()) if word not in EVERYDAY_WORDS)
        for word, n_times in words.items():
            padded = f"<{word}>"
            parts = [padded, *(padded[i : i + 4] for i in range(len(padded) - 4))]
            for part in parts:  # the same in every process, unlike hash()
                vector[zlib.crc32(part.encode()) % self.n_dimensions] += math.log1p(n_times) / math.sqrt(len(parts))
        length = math.sqrt(sum(value * value for value in vector)) or 1.0
        return [value / length for value in vector]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def answer(options: argparse.Namespace) -> None:
    """Read the folder, print the answer as it comes, then its sources."""
    reader = SimpleDirectoryReader(str(options.folder), recursive=True, required_exts=[".txt", ".md", ".rst"])
    with LocalLlama(model=options.model, temperature=0, max_tokens=200, reasoning="off") as llm:
        Settings.llm = llm
        Settings.embed_model = HashingEmbedding()
        # Counted in words: roughly a quarter more tokens, and the server need not start for it.
        splitter = SentenceSplitter(chunk_size=200, chunk_overlap=20, tokenizer=str.split)
        index = VectorStoreIndex.from_documents(reader.load_data(), transformations=[splitter])
        questions: Any = index.as_query_engine(streaming=True, similarity_top_k=options.top)
        response = questions.query(options.question)
        for piece in response.response_gen:
            print(piece, end="", flush=True)
        print("\n\nSources:")
        for source in response.source_nodes:
            name = Path(source.node.metadata["file_path"]).relative_to(options.folder.resolve())
            print(f"  {name} ({source.score:.2f}): {' '.join(source.node.get_content().split())[:80]}")


def main(arguments: list[str] | None = None) -> int:
    """Answer one question; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files are (.txt, .md, .rst), in subfolders too")
    parser.add_argument("question")
    parser.add_argument("--top", type=int, default=2, help="how many pieces the model gets (default: %(default)s)")
    parser.add_argument("--model", default="smollm2-135m", help="path or other model reference (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is not a folder")
    try:
        answer(options)
    except (LocalLlamaError, ValueError) as error:  # LlamaIndex's, where the folder has no such file
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
