"""Loading models: what works, and one line for each thing that does not."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model

from helpers.models import build, random_sequences
from memtax.errors import MemtaxError, ModelError
from memtax.lm.loading import load_model, load_tokenizer, model_files
from memtax.lm.scores import score


@pytest.fixture
def folder(tmp_path):
    build("gpt_neox").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_saved_model_comes_back_for_scoring(folder):
    model, sequences = load_model(str(folder), device="cpu"), random_sequences([20])
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert score(model, sequences).logprobs.tolist() == score(build("gpt_neox"), sequences).logprobs.tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
def test_dtype(folder, dtype):
    expected = torch.float32 if dtype == "auto" else getattr(torch, dtype)  # it was saved in float32
    assert load_model(folder, dtype=dtype, device="cpu").dtype == expected
    with pytest.raises(ModelError, match="unknown dtype 'float33'; choose one of float32"):
        load_model(folder, dtype="float33")


def test_an_adapter_is_loaded_onto_its_base_model(folder, tmp_path):
    torch.manual_seed(2)
    config = LoraConfig(r=4, init_lora_weights=False, target_modules=["query_key_value"], task_type="CAUSAL_LM")
    adapted = get_peft_model(load_model(folder, device="cpu"), config).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    sequences = random_sequences([20])
    loaded = load_model(tmp_path / "adapter", device="cpu")
    assert score(loaded, sequences).logprobs == pytest.approx(score(adapted, sequences).logprobs, abs=1e-6)
    # The base model's weights decide the scores as well.
    assert str(folder / "model.safetensors") in model_files(tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match=r"contains no adapter_model.safetensors; pickled weights are not loaded"):
        load_model(tmp_path / "adapter")


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(ModelError, match=r"nowhere does not exist; give a model's folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"contains no config.json; did you mean .*model\?"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="is a file; give the folder"):
        load_model(folder / "config.json")
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError) as error:
        load_model(folder)
    assert str(folder) in one_line(error)


def test_a_hub_name_that_is_not_there_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError) as error:
        load_model("nobody/no-such-model", revision="step1")
    assert "no model nobody/no-such-model (revision step1) in this directory or on the Hub (offline mode is on" in one_line(
        error
    )


def test_weights_missing_damaged_or_pickled(folder):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError) as error:
        load_model(folder)
    assert "cannot be loaded" in one_line(error)
    weights.unlink()
    with pytest.raises(ModelError, match="contains no weights; save the model again"):
        load_model(folder)
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"contains only pytorch_model.bin, a pickle, which is never loaded"):
        load_model(folder)


def test_weights_that_lack_a_layer_are_not_filled_with_random_values(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "layers.1.mlp" in name)
    save_file({key: value for key, value in tensors.items() if key != name}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError) as error:
        load_model(folder)
    assert "are incomplete" in one_line(error)
    assert name in str(error.value)


def test_code_that_comes_with_a_model_does_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "homemade", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(ModelError, match="needs code that comes with it"):
        load_model(folder)


def test_only_configuration_and_weights_count_as_the_models_files(folder):
    (folder / "optimizer.pt").write_bytes(b"state")
    (folder / "rng_state.pth").write_bytes(b"state")
    names = {file.rpartition("/")[2] for file in model_files(folder)}
    assert names == {"config.json", "generation_config.json", "model.safetensors"}
    assert model_files("org/name") == ["org/name"]


def test_tokenizer(folder, tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert load_tokenizer(tmp_path / "tokenizer").convert_tokens_to_ids("b") == 1
    with pytest.raises(ModelError, match="does not exist; give a tokenizer's folder"):
        load_tokenizer(tmp_path / "nowhere")
    record = tmp_path / "tokenizer" / "tokenizer_config.json"
    whole = json.loads(record.read_text())
    for key, wrong in (("model_max_length", [1]), ("eos_token", ["a"]), ("tokenizer_class", 3), ("padding_side", "up")):
        record.write_text(json.dumps({**whole, key: wrong}))
        with pytest.raises(MemtaxError, match=f"tokenizer_config.json: {key} is"):
            load_tokenizer(tmp_path / "tokenizer")
    shutil.rmtree(tmp_path / "tokenizer")
    (tmp_path / "tokenizer").mkdir()
    with pytest.raises(ModelError) as error:
        load_tokenizer(tmp_path / "tokenizer")
    assert "no tokenizer can be loaded" in one_line(error)
