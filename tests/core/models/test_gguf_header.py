"""The GGUF header reader: what it reads, how fast, and what it says of every file that is not a good model."""

from __future__ import annotations

import os
import random
import struct
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import psutil
import pytest

from localllama._models import gguf as gguf_module
from localllama._models import gguf_reading
from localllama._models.gguf import model_fingerprint, read_gguf_header
from localllama.errors import ConfigurationError, ModelCorruptError, ModelError, ModelNotFoundError
from support.gguf_bytes import (
    ARRAY,
    STRING,
    GGUFBytes,
    numbers,
    small_model,
    string,
    strings,
    tensor,
    text,
    u32,
)


@pytest.fixture
def write(tmp_path: Path):
    def written(content: bytes, name: str = "model.gguf") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return written


class TestReading:
    def test_reads_what_the_gguf_package_reads(self, micro_model: Path) -> None:
        header = read_gguf_header(micro_model)
        reader = gguf.GGUFReader(micro_model)
        assert header.architecture == reader.get_field("general.architecture").contents() == "llama"
        assert header.n_ctx_train == reader.get_field("llama.context_length").contents()
        assert header.chat_template == reader.get_field("tokenizer.chat_template").contents()
        assert header.n_vocab == len(reader.get_field("tokenizer.ggml.tokens").contents())
        assert header.n_params == sum(int(item.n_elements) for item in reader.tensors)
        assert header.n_tensors == len(reader.tensors)
        assert header.quantization == "F32"
        assert header.size_bytes == micro_model.stat().st_size

    def test_reads_every_field(self, write) -> None:
        header = read_gguf_header(write(small_model(general__file_type=u32(15)).build()))
        assert (header.version, header.kind, header.name, header.quantization) == (3, "model", "Small", "Q4_K_M")
        assert (header.n_ctx_train, header.n_vocab, header.n_tensors, header.n_params) == (16384, 4, 2, 24)
        assert (header.n_layer, header.n_embd, header.n_head, header.n_head_kv) == (2, 8, 4, 2)
        assert (header.n_embd_head_k, header.n_embd_head_v) == (2, 2)
        assert header.chat_template == "{{ messages }}"
        assert header.chat_template_names == ("tool_use",)
        assert not header.is_embedding_model

    def test_version_2_is_read_too(self, write) -> None:
        model = small_model()
        model.version = 2
        assert read_gguf_header(write(model.build())).version == 2

    def test_without_a_file_type_the_quantization_is_that_of_most_weights(self, write) -> None:
        model = GGUFBytes(
            entries={"general.architecture": string("llama")},
            tensors=[
                tensor("norm.0", (8,)),
                tensor("norm.1", (8,), offset=32),
                tensor("weight", (64, 2), kind=8, offset=64),
            ],
            data=bytes(64 + 136),
        )
        assert read_gguf_header(write(model.build())).quantization == "Q8_0"

    def test_an_embedding_model_says_so(self, write) -> None:
        assert read_gguf_header(write(small_model(llama__pooling_type=u32(1)).build())).is_embedding_model

    def test_a_text_that_is_not_utf8_is_read_with_replacement_characters(self, write) -> None:
        model = small_model(general__name=struct.pack("<I", STRING) + text(b"caf\xe9"))
        assert read_gguf_header(write(model.build())).name == "caf\ufffd"

    def test_a_tensor_type_of_the_future_is_not_held_against_the_file(self, write) -> None:
        model = small_model()
        model.tensors = [tensor("a.weight", (8, 2), kind=999), tensor("b.weight", (8,), offset=32)]
        model.data = bytes(64)
        assert read_gguf_header(write(model.build())).n_tensors == 2

    def test_the_alignment_of_the_header_is_respected(self, write) -> None:
        model = small_model(general__alignment=u32(128))
        model.alignment = 128
        model.tensors[1] = tensor("b.weight", (8,), offset=128)
        model.data = bytes(128 + 32)
        path = write(model.build())
        assert read_gguf_header(path).n_params == 24
        path.write_bytes(model.build()[:-1])
        with pytest.raises(ModelCorruptError, match="cut short"):
            read_gguf_header(path)

    def test_a_vocabulary_of_150k_tokens_is_passed_over_and_not_read(self, write) -> None:
        """What that saves in time, `benchmarks/gguf_header.py` measures."""
        vocabulary = [f"tok{number}" for number in range(150_000)]
        merges = [f"to k{number}" for number in range(300_000)]
        entries = {"tokenizer.ggml.tokens": strings(vocabulary), "tokenizer.ggml.merges": strings(merges)}
        model = small_model()
        model.entries |= entries
        path = write(model.build())
        tracemalloc.start()
        try:
            assert read_gguf_header(path).n_vocab == 150_000
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 4 << 20, "450 000 strings would take 20 MiB and more"

    def test_a_changed_file_is_read_again_and_an_equal_one_is_not(self, write, monkeypatch) -> None:
        opened: list[str] = []
        real_open = gguf_module.open_model_file
        monkeypatch.setattr(gguf_module, "open_model_file", lambda path: opened.append(path) or real_open(path))
        path = write(small_model().build())
        assert read_gguf_header(path) == read_gguf_header(path)
        assert len(opened) == 1
        write(small_model(general__name=string("Changed")).build())
        assert read_gguf_header(path).name == "Changed"
        assert len(opened) == 2


class TestDamage:
    def test_a_file_cut_anywhere_is_corrupt_and_nothing_else(self, write) -> None:
        whole = small_model().build()
        assert read_gguf_header(write(whole)).n_tensors == 2
        for length in range(len(whole)):
            with pytest.raises(ModelCorruptError) as caught:
                read_gguf_header(write(whole[:length], f"cut-{length}.gguf"))
            assert f"cut-{length}.gguf" in str(caught.value)
            assert caught.value.hint

    @pytest.mark.parametrize(
        ("limit", "entries"),
        [
            ("MAX_KEPT_TEXT_BYTES", [string("x" * 400)] * 3),
            ("MAX_ARRAY_STRINGS", [strings(["x"] * 400)] * 3),
        ],
        ids=["text", "strings in arrays"],
    )
    def test_the_limits_are_those_of_all_entries_together(self, write, monkeypatch, limit: str, entries) -> None:
        """Else a file of a million entries, each just small enough, would fill the memory."""
        monkeypatch.setattr(gguf_reading, limit, 1000)
        few = small_model(**{f"n{number}": entry for number, entry in enumerate(entries[:1])})
        assert read_gguf_header(write(few.build(), "few.gguf")).n_tensors == 2
        many = small_model(**{f"n{number}": entry for number, entry in enumerate(entries)})
        with pytest.raises(ModelCorruptError, match="more than any real model has"):
            read_gguf_header(write(many.build(), "many.gguf"))

    def test_overwritten_bytes_give_a_header_or_a_clear_error(self, write) -> None:
        whole = small_model().build()
        header_bytes = len(small_model().header())
        chance = random.Random(20)
        refused = 0
        for number in range(1500):
            damaged = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                damaged[chance.randrange(4, header_bytes)] = chance.choice(
                    (0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256))
                )
            try:
                read_gguf_header(write(bytes(damaged), f"{number}.gguf"))
            except ModelCorruptError:
                refused += 1
        assert refused > 500

    @pytest.mark.parametrize(
        ("model", "words"),
        [
            (GGUFBytes(n_entries=2**60), "announces"),
            (GGUFBytes(n_tensors=2**63), "announces"),
            (GGUFBytes({"key": struct.pack("<IQ", STRING, 2**63)}), "ends inside"),
            (GGUFBytes({"key": struct.pack("<IQ", STRING, 2**64 - 8)}), "ends inside"),
            (GGUFBytes({"key": struct.pack("<IIQ", ARRAY, STRING, 2**61)}), "announces"),
            (GGUFBytes({"key": struct.pack("<IIQ", ARRAY, 4, 2**62)}), "ends inside"),
            (GGUFBytes({"key": struct.pack("<IIQ", ARRAY, STRING, 1) + struct.pack("<Q", 2**64 - 1)}), "ends inside"),
            (GGUFBytes({"key": struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * 1000}), "elements of type 9"),
            (GGUFBytes({"key": struct.pack("<I", 13)}, data=bytes(8)), "type 13"),
            (GGUFBytes({"": u32(1)}), "no key"),
            (GGUFBytes({"a": u32(1)}, tensors=[text("a") + u32(1)], n_tensors=0, n_entries=2), "repeats"),
            (small_model(general__alignment=u32(48)), "power of two"),
            (small_model(general__alignment=string("32")), "power of two"),
            (GGUFBytes(tensors=[tensor("w", (2**40, 2**40))]), "dimensions"),
            (GGUFBytes(tensors=[tensor("w", (2,) * 5)]), "5 dimensions"),
            (GGUFBytes(tensors=[tensor("w", (33,), kind=8)], data=bytes(64)), "multiple of Q8_0"),
            (GGUFBytes(tensors=[tensor("w", (1,)), tensor("w", (1,), offset=32)], data=bytes(64)), "twice"),
            (GGUFBytes(tensors=[tensor("w", (1,), offset=2**63)], data=bytes(64)), "comes next"),
            (GGUFBytes(tensors=[tensor("w" * 64, (1,))], data=bytes(64)), "64 bytes long"),
        ],
    )
    def test_numbers_that_lie(self, write, model: GGUFBytes, words: str) -> None:
        with pytest.raises(ModelCorruptError, match=words):
            read_gguf_header(write(model.build()))

    @pytest.mark.parametrize(
        ("version", "words"),
        [(0, "version 0"), (1, "version 1"), (4, "version 4"), (0x03000000, "big-endian"), (2**31, "big-endian")],
    )
    def test_other_versions(self, write, version: int, words: str) -> None:
        with pytest.raises(ModelCorruptError, match=words):
            read_gguf_header(write(struct.pack("<4sIQQ", b"GGUF", version, 0, 0)))

    def test_no_architecture(self, write) -> None:
        with pytest.raises(ModelCorruptError, match="no architecture"):
            read_gguf_header(write(GGUFBytes().build()))

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "empty"),
            (bytes(5000), "zero bytes"),
            (b"\n <!DOCTYPE html><html><title>Sign in</title>", "HTML page: the download was probably a login"),
            (b"<html>404</html>", "HTML page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
            (b"PK\x03\x04" + bytes(60), "zip archive"),
            (b"\x1f\x8b\x08" + bytes(60), "gzip"),
            (struct.pack("<Q", 20) + b'{"__metadata__":{}}  ', "safetensors"),
            (b"tjgg\x03\x00\x00\x00" + bytes(40), "old ggjt format"),
            (b"lmgg" + bytes(40), "old ggml format"),
            (b"\x80\x04\x95" + bytes(40), "pickle"),
            (b'{"error":"Invalid username or password."}', "JSON"),
            (b"<?xml version='1.0'?><Error/>", "XML"),
            (b"Not Found", "text that begins with 'Not Found'"),
            (random.Random(3).randbytes(4096), "begins with the bytes"),
            (b"G", "ends inside"),
        ],
    )
    def test_what_is_not_gguf_is_named(self, write, content: bytes, words: str) -> None:
        with pytest.raises(ModelCorruptError, match=words) as caught:
            read_gguf_header(write(content))
        assert "model.gguf" in caught.value.message
        assert caught.value.hint


class TestNoFile:
    def test_a_missing_file_names_near_ones(self, write) -> None:
        path = write(small_model().build(), "qwen2.5-3b-q4_k_m.gguf")
        with pytest.raises(ModelNotFoundError, match=r"qwen2\.5-3b-q4_k_m\.gguf") as caught:
            read_gguf_header(path.with_name("qwen2.5-3b-q4km.gguf"))
        assert isinstance(caught.value, FileNotFoundError)

    def test_a_directory_names_the_models_inside(self, write) -> None:
        with pytest.raises(ModelNotFoundError, match=r"'one.gguf'"):
            read_gguf_header(write(b"", "one.gguf").parent)

    def test_a_fifo_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.gguf")
        with pytest.raises(ModelNotFoundError, match="FIFO"):
            read_gguf_header(tmp_path / "pipe.gguf")

    def test_a_file_replaced_by_a_fifo_at_the_last_moment_does_not_block(self, write, monkeypatch) -> None:
        path = write(small_model().build())
        real_open = os.open

        def swap_and_open(name, flags, *args, **kwargs):
            path.unlink()
            os.mkfifo(path)
            return real_open(name, flags, *args, **kwargs)

        monkeypatch.setattr(os, "open", swap_and_open)
        with pytest.raises(ModelNotFoundError, match="FIFO"):
            read_gguf_header(path)

    @pytest.mark.parametrize("path", ["/dev/zero", "model\0.gguf", "x" * 5000, "", "/dev/null/model.gguf"])
    def test_impossible_paths(self, path: str) -> None:
        with pytest.raises(ModelError):
            read_gguf_header(path)

    def test_a_file_that_may_not_be_read(self, write) -> None:
        path = write(small_model().build())
        path.chmod(0)
        with _as_nobody(), pytest.raises(ModelError, match="chmod"):
            read_gguf_header(path)


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Root may read everything, so drop to another user for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class TestSplits:
    @pytest.fixture
    def parts(self, write) -> list[Path]:
        def part(number: int, **entries: bytes) -> Path:
            model = small_model(split__no=u32(number), split__count=u32(3), **entries)
            if number:
                model.entries = {key: value for key, value in model.entries.items() if key.startswith("split.")}
            return write(model.build(), f"big-{number + 1:05d}-of-00003.gguf")

        return [part(0), part(1), part(2)]

    def test_the_first_part_stands_for_all(self, parts: list[Path]) -> None:
        header = read_gguf_header(parts[0])
        assert header.parts == tuple(map(str, parts))
        assert header.size_bytes == sum(part.stat().st_size for part in parts)
        assert (header.n_tensors, header.n_params, header.n_ctx_train) == (6, 72, 16384)

    def test_another_part_asks_for_the_first(self, parts: list[Path]) -> None:
        with pytest.raises(ConfigurationError, match="part 2 of 3") as caught:
            read_gguf_header(parts[1])
        assert str(parts[0]) in str(caught.value.hint)

    def test_a_missing_part_is_named(self, parts: list[Path]) -> None:
        parts[2].unlink()
        with pytest.raises(ModelNotFoundError, match="big-00003-of-00003"):
            read_gguf_header(parts[0])

    def test_a_damaged_part_is_named(self, parts: list[Path]) -> None:
        parts[1].write_bytes(parts[1].read_bytes()[:-1])
        with pytest.raises(ModelCorruptError, match=r"big-00002-of-00003.*cut short"):
            read_gguf_header(parts[0])

    def test_a_renamed_part_is_found_out(self, parts: list[Path]) -> None:
        renamed = parts[0].rename(parts[0].with_name("model.gguf"))
        with pytest.raises(ModelCorruptError, match="part 1 of 3"):
            read_gguf_header(renamed)

    def test_the_fingerprint_covers_every_part(self, parts: list[Path]) -> None:
        before = model_fingerprint(parts[0])
        changed = bytearray(parts[2].read_bytes())
        changed[-1] ^= 1
        parts[2].write_bytes(changed)
        assert model_fingerprint(parts[0]) != before


class TestFingerprint:
    def test_equal_files_have_equal_ones_wherever_they_are(self, write) -> None:
        one, two = write(small_model().build(), "one.gguf"), write(small_model().build(), "two.gguf")
        assert model_fingerprint(one) == model_fingerprint(two)
        assert len(model_fingerprint(one)) == 64

    @pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
    def test_a_changed_weight_at_the_start_middle_or_end_shows(self, write, where: float) -> None:
        model = small_model()
        model.tensors = [tensor("w", (1_000_000,))]
        model.data = bytes(4_000_000)
        before = model_fingerprint(write(model.build(), "before.gguf"))
        changed = bytearray(model.data)
        changed[int(where * (len(changed) - 1))] = 1
        model.data = bytes(changed)
        assert model_fingerprint(write(model.build(), "after.gguf")) != before

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts what a process reads")
    def test_a_file_of_40_gb_is_not_read_whole(self, tmp_path: Path) -> None:
        model = small_model()
        model.tensors = [tensor("w", (10_000_000_000,))]
        path = tmp_path / "huge.gguf"
        with path.open("wb") as file:
            file.write(model.build())
            file.truncate(len(model.header()) + 32 + 40_000_000_000)
        process = psutil.Process()
        before = process.io_counters().read_chars
        model_fingerprint(path)
        assert read_gguf_header(path).n_params == 10_000_000_000
        assert process.io_counters().read_chars - before < 64 << 20


def test_head_counts_may_differ_by_layer(write) -> None:
    model = small_model(llama__attention__head_count=numbers([2, 4]))
    assert read_gguf_header(write(model.build())).n_head == 4
