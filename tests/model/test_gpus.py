from __future__ import annotations

import itertools
import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.model.gpu_table import GPU_MODELS, GpuModel
from gpubroker.model.gpus import (
    gpu_compute_capability,
    gpu_matches,
    gpu_name,
    gpu_vram,
    parse_gpu,
)

unhurried = settings(deadline=None)
models = st.sampled_from(GPU_MODELS)
FAMILIES = sorted({model.family for model in GPU_MODELS})
PARTIAL = ["A100 80GB", "A100 SXM", "H100 80GB", "V100 32GB", "V100 PCIe", "P100 16GB"]
CANONICAL = sorted({*FAMILIES, *PARTIAL, *(model.name for model in GPU_MODELS)})


class TestParseGpu:
    @pytest.mark.parametrize(
        "spelling",
        ["RTX 4090", "rtx4090", "RTX_4090", "rtx-4090", "4090", " NVIDIA  GeForce RTX 4090 "],
    )
    def test_one_card_has_one_name_however_it_is_spelt(self, spelling: str) -> None:
        """Every common spelling of a card gives the same canonical name."""
        assert parse_gpu(spelling) == "RTX 4090"

    @pytest.mark.parametrize(
        ("asked", "canonical"),
        [
            ("a100", "A100"),
            ("A100 80GB", "A100 80GB"),
            ("A100-80", "A100 80GB"),
            ("A100-SXM4-80GB", "A100 80GB SXM"),
            ("A100 SXM 40GB", "A100 40GB SXM"),
            ("A100 PCIe", "A100 PCIe"),
            ("H100", "H100"),
            ("H100 SXM", "H100 SXM"),
            ("H100 SXM5 80GB", "H100 SXM"),
            ("h100 80gb", "H100 80GB"),
            ("H100 NVL", "H100 NVL"),
            ("H200", "H200"),
            ("T4 PCIe", "T4"),
            ("B200 192GB", "B200"),
            ("a6000", "RTX A6000"),
            ("6000 Ada", "RTX 6000 Ada"),
            ("RTX 6000 48GB", "RTX 6000 Ada"),
            ("RTX 6000 Blackwell", "RTX PRO 6000"),
            ("4080 super", "RTX 4080 Super"),
            ("4080S", "RTX 4080 Super"),
            ("RTX 3080", "RTX 3080"),
            ("RTX 3080 12GB", "RTX 3080 12GB"),
            ("RTX 4090 Laptop GPU", "RTX 4090 Laptop"),
            ("1080 Ti", "GTX 1080 Ti"),
            ("mi300x", "MI300X"),
        ],
    )
    def test_a_name_is_as_precise_as_it_was_asked(self, asked: str, canonical: str) -> None:
        """A family stays a family, and each further detail narrows it down."""
        assert parse_gpu(asked) == canonical

    @pytest.mark.parametrize(
        ("asked", "nearest"),
        [
            ("RTX 4909", "RTX 4090"),
            ("4909", "RTX 4090"),
            ("H10", "H100"),
            ("MI300", "MI300X"),
            ("RTX 4090 48GB", "RTX 4090"),
            ("A100 60GB", "A100"),
            ("RTX 4090 Ti", "RTX 4090"),
            ("GTX 4090", "RTX 4090"),
        ],
    )
    def test_an_unknown_name_is_refused_with_the_nearest_one(
        self, asked: str, nearest: str
    ) -> None:
        """The error names the argument, the value and the nearest card that exists."""
        with pytest.raises(InvalidValue, match=f"did you mean '{nearest}'") as caught:
            parse_gpu(asked, "gpus[2]")

        assert (caught.value.field, caught.value.value) == ("gpus[2]", asked)
        assert caught.value.suggestion == nearest

    @pytest.mark.parametrize("asked", ["", " ", "!", "no such thing", "🦆"])
    def test_a_name_like_no_other_gets_no_suggestion(self, asked: str) -> None:
        """Nothing is suggested where nothing is near."""
        with pytest.raises(InvalidValue, match="unknown GPU") as caught:
            parse_gpu(asked)

        assert caught.value.suggestion is None

    def test_a_name_that_two_cards_share_is_refused(self) -> None:
        """Money is not spent on a guess: "RTX 6000" is a Quadro or an Ada card."""
        with pytest.raises(InvalidValue, match="Quadro RTX 6000 or RTX 6000 Ada"):
            parse_gpu("RTX 6000")

    @pytest.mark.parametrize("name", CANONICAL)
    def test_a_canonical_name_is_its_own_canonical_name(self, name: str) -> None:
        """What `parse_gpu` returns, it accepts and leaves alone."""
        assert parse_gpu(name) == name

    @unhurried
    @given(st.sampled_from(CANONICAL), st.randoms(use_true_random=False))
    def test_case_and_separators_do_not_matter(self, name: str, random: Random) -> None:
        """Capitals, blanks, hyphens and underscores change nothing."""
        spelt = "".join(random.choice((c.lower(), c.upper())) for c in name)
        spelt = spelt.replace(" ", random.choice(("", "-", "_", "  ")))

        assert parse_gpu(spelt) == name


class TestGpuName:
    @pytest.mark.parametrize(
        ("label", "vram", "canonical"),
        [
            # Vast.ai
            ("RTX 4090", 24.564, "RTX 4090"),
            ("RTX 4090D", 24.564, "RTX 4090 D"),
            ("RTX 4070S Ti", 16.376, "RTX 4070 Ti Super"),
            ("A100 SXM4", 40.96, "A100 40GB SXM"),
            ("A100 SXM4", 81.92, "A100 80GB SXM"),
            ("A100 SXM4", None, "A100 SXM"),
            ("A100 PCIE", 81.92, "A100 80GB PCIe"),
            ("H100 SXM", 81.559, "H100 SXM"),
            ("H100 NVL", 95.83, "H100 NVL"),
            ("H200", 143.771, "H200 SXM"),
            ("RTX 6000Ada", 49.14, "RTX 6000 Ada"),
            ("RTX A6000", 49.14, "RTX A6000"),
            ("RTX PRO 6000 S", 97.887, "RTX PRO 6000 Server"),
            ("RTX PRO 6000 WS", 97.887, "RTX PRO 6000 Workstation"),
            ("Tesla T4", 15.36, "T4"),
            ("Tesla V100", 32.768, "V100 32GB"),
            ("Q RTX 8000", 46.08, "Quadro RTX 8000"),
            ("RTX 3060", 12.288, "RTX 3060 12GB"),
            # RunPod
            ("NVIDIA A100 80GB PCIe", 80, "A100 80GB PCIe"),
            ("NVIDIA A100-SXM4-80GB", 80, "A100 80GB SXM"),
            ("NVIDIA H100 80GB HBM3", 80, "H100 SXM"),
            ("NVIDIA H100 PCIe", 80, "H100 PCIe"),
            ("NVIDIA H200 NVL", 143, "H200 NVL"),
            ("NVIDIA B300 SXM6 AC", 288, "B300"),
            ("NVIDIA RTX 6000 Ada Generation", 48, "RTX 6000 Ada"),
            ("NVIDIA RTX 4000 SFF Ada Generation", 20, "RTX 4000 SFF Ada"),
            ("NVIDIA A5000 Ada", 32, "RTX 5000 Ada"),
            ("NVIDIA  RTX A4500", 20, "RTX A4500"),
            ("NVIDIA L40S", 48, "L40S"),
            ("NVIDIA GeForce RTX 3080TI", 12, "RTX 3080 Ti"),
            ("NVIDIA GeForce RTX 3090 Ti", 24, "RTX 3090 Ti"),
            ("NVIDIA RTX PRO 4500 Blackwell", 32, "RTX PRO 4500"),
            (
                "NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 1g.24gb",
                24,
                "RTX PRO 6000 MIG 24GB",
            ),
            ("AMD Instinct MI300X OAM", 192, "MI300X"),
            # The driver
            ("NVIDIA A100-PCIE-40GB", 42.9, "A100 40GB PCIe"),
            ("Tesla V100-SXM2-16GB", 16.9, "V100 16GB SXM"),
            ("Tesla V100-FHHL-16GB", 16.9, "V100 16GB FHHL"),
            ("NVIDIA GH200 480GB", 102.6, "GH200 96GB"),
            ("NVIDIA RTX A2000 12GB", None, "RTX A2000 12GB"),
            ("NVIDIA GeForce RTX 4090 Laptop GPU", 17.2, "RTX 4090 Laptop"),
            (
                "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
                None,
                "RTX PRO 6000 Workstation",
            ),
            ("NVIDIA TITAN X (Pascal)", 12.8, "Titan X Pascal"),
            # Price catalogues of other clouds
            ("A100-80GB", None, "A100 80GB"),
            ("H100-MEGA", None, "H100 SXM"),
            ("RTX5880-Ada", None, "RTX 5880 Ada"),
            ("RTX6000", 24, "Quadro RTX 6000"),
            ("RTXPRO6000WS", None, "RTX PRO 6000 Workstation"),
            ("V100-32GB", None, "V100 32GB"),
            ("M60", None, "M60"),
            ("MI25", None, "MI25"),
        ],
    )
    def test_labels_of_vendors_become_canonical(
        self, label: str, vram: float | None, canonical: str
    ) -> None:
        """Each vendor's label, with the memory where it is known, gives the canonical name."""
        assert gpu_name(label, vram) == canonical

    @pytest.mark.parametrize("vram", [0.0, -1.0, 5.0, 1e300, math.nan, math.inf])
    def test_memory_that_fits_no_member_tells_nothing(self, vram: float) -> None:
        """A modified card, or a senseless figure, leaves the label as precise as it was."""
        assert gpu_name("A100 SXM4", vram) == "A100 SXM"

    @pytest.mark.parametrize(
        ("label", "tidied"),
        [
            ("NVIDIA  FOO_9000", "FOO 9000"),
            ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "A100-SXM4-80GB MIG 1g.10gb"),
            ("evil\n\x1b[31mcard", "evil [31mcard"),
            ("RTX 6000", "RTX 6000"),
            ("NVIDIA", "NVIDIA"),
            ("", "unknown GPU"),
        ],
    )
    def test_an_unknown_label_is_tidied(self, label: str, tidied: str) -> None:
        """What nobody knows yet is kept, on one line that is fit to be shown."""
        assert gpu_name(label) == tidied

    @unhurried
    @given(
        st.text() | st.sampled_from(CANONICAL).map("NVIDIA {} x".format), st.floats() | st.none()
    )
    def test_any_text_gives_a_name_that_stays(self, text: str, vram: float | None) -> None:
        """No label raises, and a name that came out comes out again."""
        name = gpu_name(text, vram)

        assert name.isprintable()
        assert 0 < len(name) <= 80
        assert gpu_name(name) == name

    @given(models)
    def test_a_full_name_stays_with_and_without_its_memory(self, model: GpuModel) -> None:
        """The name of a model is the canonical name of that model."""
        assert gpu_name(model.name) == model.name
        assert gpu_name(parse_gpu(model.name), model.vram) == model.name

    @unhurried
    @given(models, st.floats(0.94, 1.08))
    def test_the_driver_need_not_report_the_nominal_size(
        self, model: GpuModel, ratio: float
    ) -> None:
        """Memory counted in MiB, or less what error correction takes, names the same card."""
        assert gpu_name(model.name, model.vram * ratio) == model.name

    def test_an_overlong_label_is_cut_and_never_taken_for_a_card(self) -> None:
        """What is cut off might have told two cards apart, so the rest is no known card."""
        name = gpu_name("RTX 4090" + " edition" * 50 + " Laptopish")

        assert len(name) <= 80
        assert not gpu_matches("RTX 4090", name)


class TestGpuMatches:
    @pytest.mark.parametrize(
        ("wanted", "offered"),
        [
            ("A100", "A100 80GB SXM"),
            ("A100", "A100 SXM"),
            ("A100 80GB", "A100 80GB PCIe"),
            ("A100 SXM", "A100 40GB SXM"),
            ("H100", "H100 SXM"),
            ("H100", "H100 PCIe"),
            ("H100", "H100 NVL"),
            ("H100 80GB", "H100 PCIe"),
            ("H200", "H200 NVL"),
            ("V100 16GB", "V100 16GB FHHL"),
            ("RTX PRO 6000", "RTX PRO 6000 Max-Q"),
            ("RTX 3080", "RTX 3080 12GB"),
        ],
    )
    def test_a_wide_name_accepts_its_members(self, wanted: str, offered: str) -> None:
        """A family, or part of one, accepts what belongs to it, and no member accepts it back."""
        assert gpu_matches(wanted, offered)
        assert not gpu_matches(offered, wanted)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("L40", "L40S"),
            ("RTX 3090", "RTX 3090 Ti"),
            ("RTX 4070 Ti", "RTX 4070 Ti Super"),
            ("RTX 4090", "RTX 4090 D"),
            ("RTX 4090", "RTX 4090 Laptop"),
            ("RTX 6000 Ada", "RTX A6000"),
            ("RTX 6000 Ada", "RTX PRO 6000"),
            ("RTX A6000", "RTX PRO 6000"),
            ("Quadro RTX 6000", "RTX 6000 Ada"),
            ("RTX PRO 6000", "RTX PRO 6000 MIG 24GB"),
            ("A100", "A10"),
            ("A100", "A100X"),
            ("A100", "A100-SXM4-80GB MIG 1g.10gb"),
            ("H100 80GB", "H100 NVL"),
            ("H100", "GH200 96GB"),
            ("MI250", "MI250X"),
            ("T4", "unknown GPU"),
        ],
    )
    def test_cards_of_alike_names_do_not_stand_in_for_one_another(
        self, one: str, other: str
    ) -> None:
        """Different silicon or class is a different card, whichever of the two is wanted."""
        assert not gpu_matches(one, other)
        assert not gpu_matches(other, one)

    def test_an_offer_must_certainly_be_what_is_wanted(self) -> None:
        """An offer that does not say its memory is no answer to a wish for 80 GB."""
        assert not gpu_matches("A100 80GB", "A100 SXM")

    def test_a_family_accepts_each_of_its_members_and_nothing_else(self) -> None:
        """Over the whole table, families and their members agree."""
        for family, model in itertools.product(FAMILIES, GPU_MODELS):
            assert gpu_matches(family, model.name) == (family == model.family)

    @unhurried
    @given(*[st.sampled_from(CANONICAL)] * 3)
    def test_matching_is_an_order(self, a: str, b: str, c: str) -> None:
        """Every name accepts itself, and what a member accepts the family accepts too."""
        assert gpu_matches(a, a)
        if gpu_matches(a, b) and gpu_matches(b, c):
            assert gpu_matches(a, c)

    def test_an_unknown_card_is_accepted_by_its_own_name_alone(self) -> None:
        """A card that is not in the table is still itself."""
        assert gpu_matches("FOO 9000", "FOO 9000")
        assert not gpu_matches("FOO 9000", "FOO 9001")


class TestFacts:
    @pytest.mark.parametrize(
        ("name", "vram", "capability"),
        [
            ("RTX 4090", 24, 8.9),
            ("A100 80GB SXM", 80, 8.0),
            ("A100 80GB", 80, 8.0),
            ("A100", None, 8.0),
            ("H100 NVL", 94, 9.0),
            ("B200", 180, 10.0),
            ("RTX 5090", 32, 12.0),
            ("MI300X", 192, None),
            ("FOO 9000", None, None),
        ],
    )
    def test_what_is_known_of_a_card_is_looked_up_by_its_name(
        self, name: str, vram: float | None, capability: float | None
    ) -> None:
        """Memory and compute capability are given where they are certain, else ``None``."""
        assert gpu_vram(name) == vram
        assert gpu_compute_capability(name) == capability

    def test_no_two_models_share_a_name(self) -> None:
        """A full name stands for one model."""
        names = [model.name for model in GPU_MODELS]

        assert len(names) == len(set(names))

    @given(models)
    def test_a_name_begins_with_its_family(self, model: GpuModel) -> None:
        """A member is named after its family, and its size where it is part of the name."""
        assert model.name == model.family or model.name.startswith(model.family + " ")
        assert model.vram > 0
        sizes = [word for word in model.name.split() if word.endswith("GB")]
        assert sizes in ([], [f"{model.vram:g}GB"])
