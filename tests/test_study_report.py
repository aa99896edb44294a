"""The report states what its results say: flags follow the intervals, and the page is self-contained."""

import re

import pytest
from page_in_browser import CHROMIUM, Page, seen
from study_stand_in import gap, made_up_gallery, made_up_study, mean

from realfake_hf.explain_study import faithfulness_section, grid_game_section, report, tables
from realfake_hf.explain_study.arguments import StudyArguments
from realfake_hf.explain_study.findings import findings
from realfake_hf.explain_study.names import agreement_of, key_pairs, main_pair
from realfake_hf.pages import page as page_parts
from realfake_hf.store import read_json

IOU = "iou_top_20"
PARTS = ("faithfulness", "sanity", "planted", "grids", "causal", "entity", "patching", "sinks")
NASTY = '<script>alert("cat & dog")</script>'


@pytest.fixture
def study():
    return made_up_study()


def column(table, name, row=None):
    """The cells of a column, or the cell of the row that begins with some cells."""
    place = table.header.index(name)
    if row is None:
        return [cells[place] for cells in table.rows]
    [found] = [cells[place] for cells in table.rows if tuple(cells[: len(row)]) == row]
    return found


def pairs_of(study):
    return agreement_of(study)["pairs"]


class TestPairs:
    def test_the_main_pair_is_grad_cam_of_one_model_and_relevance_of_the_other(self, study):
        pair = main_pair(pairs_of(study))
        assert (pair["a"], pair["b"]) == ("cnn grad_cam", "vit relevance")

    def test_key_pairs_are_those_across_models_with_grad_cam_and_their_yardsticks(self, study):
        assert [(pair["a"], pair["b"]) for pair in key_pairs(pairs_of(study))] == [
            ("cnn grad_cam", "vit rollout"),
            ("cnn grad_cam", "vit last_attention"),
            ("cnn grad_cam", "vit gradient_rollout"),
            ("cnn grad_cam", "vit relevance"),
            ("cnn grad_cam", "vit grad_cam"),
            ("cnn grad_cam", "vit integrated_gradients"),
            ("cnn integrated_gradients", "vit grad_cam"),
            ("cnn grad_cam", "cnn integrated_gradients"),
            ("vit relevance", "vit grad_cam"),
            ("vit grad_cam", "vit integrated_gradients"),
        ]


class TestFlags:
    pair = ("CNN Grad-CAM and ViT relevance",)

    @pytest.mark.parametrize(
        ("same", "difference", "chance", "sign"),
        [
            (0.25, gap(0.05), "yes", "positive"),
            (0.12, gap(0.01), "no", "unclear"),
            (0.05, gap(-0.05), "no", "negative"),
            (0.25, gap(0.05, p_holm=0.2), "yes", "unclear"),  # its interval alone excludes 0
        ],
    )
    def test_agreement_is_compared_with_chance_and_with_other_images(self, study, same, difference, chance, sign):
        main_pair(pairs_of(study))["measures"][IOU] |= {"same_picture": mean(same), "above_shuffled": difference}
        controls = tables.agreement_tables(study)[0]
        assert column(controls, "above chance", self.pair) == chance
        assert column(controls, "p (Holm)", self.pair) == f"{difference['p_holm']:.2g}"
        assert f"is {sign}. The same-image" in findings(study)[0]

    @pytest.mark.parametrize(("spots", "flag"), [((0.1, 0.2), "yes"), ((0.1, 0.4), "no"), ((0.3, 0.4), "no")])
    def test_agreement_is_compared_with_a_spot_in_the_centre(self, study, spots, flag):
        main_pair(pairs_of(study))["measures"][IOU]["same_picture"] = mean(0.25)
        for key, value in zip(("cnn grad_cam", "vit relevance"), spots, strict=True):
            agreement_of(study)["centre"][key] = {IOU: mean(value)}
        assert column(tables.agreement_tables(study)[0], "above a centre spot", self.pair) == flag

    @pytest.mark.parametrize(("value", "sign"), [(0.05, "positive"), (-0.05, "negative"), (0.0, "unclear")])
    def test_correct_predictions_are_compared_with_the_others(self, study, value, sign):
        main_pair(pairs_of(study))["right_less_wrong"] = {IOU: gap(value)}
        assert column(tables.agreement_tables(study)[1], "difference", self.pair).startswith(f"{value:+.3f}")
        assert findings(study)[0].endswith(f", is {sign}.")

    def test_every_target_is_shown_and_the_first_is_the_main_one(self, study):
        table = tables.agreement_tables(study)[2]
        assert [row[0] for row in table.rows] == ["the true label", "each model's verdict", "FAKE", "REAL"]
        assert table.rows[0][1] == tables.cell(main_pair(pairs_of(study))["measures"][IOU]["same_picture"])

    def orders_with(self, study, baseline):
        """One fill, in which the methods have these differences to a baseline."""
        gaps = {
            "grad_cam": (-0.1, 0.1), "relevance": (-0.1, -0.1), "last_attention": (0.0, 0.1), "rollout": (0.1, 0.0),
        }  # fmt: skip
        areas = {"deletion": mean(0.5), "insertion": mean(0.5)}
        rows = {
            name: areas | {f"deletion_less_{baseline}": gap(deletion), f"insertion_less_{baseline}": gap(insertion)}
            for name, (deletion, insertion) in gaps.items()
        }
        rows["random order"] = areas
        study["faithfulness"] |= {"fills": ["mean"], "models": {"vit": {"mean": rows}}}
        [table] = tables.faithfulness_tables(study)
        return table

    def test_orders_are_compared_with_random_order(self, study):
        table = self.orders_with(study, "random")
        assert column(table, "better than random in") == ["both", "deletion", "insertion", "neither", ""]
        assert "with every fill: ViT Grad-CAM." in findings(study)[1]

    def test_methods_no_better_than_the_centre_prior_are_named(self, study):
        table = self.orders_with(study, "centre")
        assert column(table, "against the centre prior") == [
            "better in both", "better in deletion", "better in insertion", "no better than the centre prior", "",
        ]  # fmt: skip
        assert "with any fill: ViT rollout." in findings(study)[1]

    def test_fidelity_is_compared_with_both_references(self, study):
        orders = study["faithfulness"]["fidelity"]["vit"]["orders"]
        for name, (random, centre) in {"rollout": (0.1, 0.1), "relevance": (0.1, 0.0), "grad_cam": (0.0, 0.1)}.items():
            orders[name] |= {"difference_less_random": gap(random), "difference_less_centre": gap(centre)}
        [table] = faithfulness_section.fidelity_tables(study)
        flags = {
            "ViT rollout": ("yes", "better"),
            "ViT relevance": ("yes", "no better than the centre prior"),
            "ViT Grad-CAM": ("no", "better"),
            "ViT random order": ("", ""),
        }
        for name, expected in flags.items():
            row = (name,)
            found = (column(table, "better than random", row), column(table, "against the centre prior", row))
            assert found == expected
        assert "at most 50% of the cells hidden" in table.caption

    def test_the_rank_of_a_method_stands_under_each_test(self, study):
        ranking = study["faithfulness"]["rankings"]["vit"]
        ranking["ranks"]["Fid+"]["relevance"] = mean(2.5, half=1)
        ranking["mean_tau"] = mean(0.25, half=0.1, n=240)
        _, table, pairs = faithfulness_section.ranking_tables(study)
        assert column(table, "Fid+", ("relevance",)) == "2.5 (1.5 to 3.5)"
        assert "on the 240 images" in table.caption
        assert "+0.250 (+0.150 to +0.350)" in table.caption
        assert findings(study)[1].endswith("ViT +0.250 (+0.150 to +0.350).")
        assert len(pairs.rows) == 6 * 5 // 2 + 8 * 7 // 2

    def test_a_study_without_fidelity_or_of_an_earlier_version_can_be_shown(self, study):
        study["faithfulness"]["fidelity"] = {}
        assert "fine-tuned" not in " ".join(table.caption for table in report.sections(study)[1].tables)
        del study["faithfulness"]["fidelity"], study["faithfulness"]["rankings"]
        assert len(report.sections(study)[1].tables) == len(study["faithfulness"]["fills"])
        assert "centre prior" not in findings(study)[1]

    def test_maps_that_survive_random_weights_are_flagged(self, study):
        methods = {"rollout": [mean(0.2), mean(0.9)], "relevance": [mean(0.9), mean(0.505)], "grad_cam": [mean(None)]}
        study["sanity"]["models"] = {"vit": {"stages": ["head", "layers"], "methods": methods}}
        methods["grad_cam"] *= 2
        [table] = tables.sanity_tables(study)
        assert column(table, "above 0.5 at the end") == ["yes", "no", ""]
        assert findings(study)[2].endswith(": ViT rollout.")

    @pytest.mark.parametrize(("hits", "flag"), [(0.5, "yes"), (0.25, "no"), (0.1, "no"), (None, "")])
    def test_hits_are_compared_with_chance(self, study, hits, flag):
        study["planted"]["models"]["vit"]["fake in real"]["methods"]["relevance"]["planted"]["hits"] = mean(hits)
        assert column(tables.planted_tables(study)[1], "above chance", ("ViT relevance", "fake in real")) == flag

    def test_a_map_is_credited_only_with_hits_beyond_those_of_the_seam(self, study):
        for model in study["planted"]["models"].values():
            for name, row in model["fake in real"]["methods"].items():
                row["planted"]["hits"] = mean(0.6)  # above chance in any case
                row["difference"]["hits"] = gap(0.2 if name == "relevance" else 0.0)
        assert findings(study)[3].endswith(": ViT relevance.")

    def test_the_roc_auc_of_planted_evidence_has_a_table_where_it_was_measured(self, study):
        table = tables.planted_tables(study)[2]
        assert column(table, "difference", ("ViT relevance", "fake in real")) == "+0.200 (+0.188 to +0.212)"
        for plantings in study["planted"]["models"].values():
            for planting in plantings.values():
                for row in planting["methods"].values():
                    del row["planted"]["roc_auc"]
        assert len(tables.planted_tables(study)) == 2

    @pytest.mark.parametrize(
        ("mass", "hits", "roc_auc", "flag"),
        [
            (gap(0.1), gap(0.1), gap(0.1), "no"),
            (gap(0.1), gap(0.1, p_holm=0.2), gap(0.1), "in hits"),
            (gap(0.0), gap(0.1), gap(-0.1), "in localisation and ROC AUC"),
            (gap(-0.1), gap(0.0), gap(0.1, p_holm=0.2), "yes"),
            (mean(None), mean(None), mean(None), "yes"),
        ],
    )
    def test_maps_that_find_the_image_of_a_grid_no_better_than_the_centre_are_flagged(
        self, study, mass, hits, roc_auc, flag
    ):
        games = study["grids"]["models"]["vit"]
        games["fake among real"]["methods"]["relevance"]["less"]["prior"] = {
            "mass": mass, "hits": hits, "roc_auc": roc_auc,
        }  # fmt: skip
        _, scores = grid_game_section.grid_section(study).tables
        assert column(scores, "no better than the centre prior", ("ViT relevance", "fake among real")) == flag
        assert ("ViT relevance" in findings(study)[4]) is (mass.get("p_holm") == 0.001 and mass["value"] > 0)

    def test_scores_of_a_grid_have_a_table_for_each_baseline_that_they_are_compared_with(self, study):
        games = study["grids"]["models"]["cnn"]
        row = games["real among fake"]["methods"]["grad_cam"]
        row["less"]["control"] = dict.fromkeys(("hits", "mass", "roc_auc"), gap(0.0))
        verdicts, prior, control = grid_game_section.grid_section(study).tables
        assert len(prior.rows) == 16
        assert [cells[:3] for cells in control.rows] == [["CNN Grad-CAM", "real among fake", "yes"]]
        assert column(control, "no better than the control") == ["yes"]
        assert verdicts.rows[0] == ["CNN", "fake among real", "0.400 (0.388 to 0.412)", "100"]

    @pytest.mark.parametrize("other", ["rim", "corner"])
    @pytest.mark.parametrize(("value", "region"), [(0.1, "other"), (-0.1, "centre"), (0.01, "unclear")])
    def test_the_region_that_costs_more_when_hidden_is_named(self, study, value, region, other):
        less = study["causal"]["models"]["cnn"]["hiding"][0]["centre_less"][other]
        less |= {"accuracy": gap(-value), "roc_auc": gap(value)}
        row = tables.occlusion_tables(study)[0].rows[other == "corner"]
        assert (row[3], row[-1]) == (other, other if region == "other" else region)
        centre, fewer = 11 + (region == "centre"), int(region == "other")
        sentence = f"more ROC AUC than hiding the {other} in {centre}, less in {fewer}."
        assert sentence in findings(study)[5]
        assert "Of 12 comparisons" in findings(study)[5]

    def test_what_hiding_the_entity_costs_is_counted(self, study):
        row = study["entity"]["models"]["cnn"]["fills"]["blur"]["differences"]
        row["entity less background"]["roc_auc"] = gap(0.2)
        row["entity alone less fill"]["roc_auc"] = gap(0.2, p_holm=0.3)
        assert findings(study)[6] == (
            "Of 4 comparisons, hiding the entity costs more ROC AUC than hiding as much background in 3, less in 1; "
            "the entity alone tells more than the fill in 3."
        )
        masses = tables.entity_tables(study)[1]
        assert masses.rows == [["CNN Grad-CAM", "40.0% (38.8% to 41.2%)", "+15.0% (+13.8% to +16.2%)", "0.001"]]

    @pytest.mark.parametrize(
        ("less", "flag", "named"),
        [
            (gap(0.1), "yes", ": ViT relevance."),
            (gap(0.1, p_holm=0.2), "no", ": none."),
            (gap(-0.1), "worse", ": none."),
        ],
    )
    def test_maps_are_compared_with_the_centre_prior_by_the_effects_of_patching(self, study, less, flag, named):
        for tested in study["patching"]["models"].values():
            for row in (
                row for name, rows in tested["maps"].items() if name != "centre prior" for row in rows.values()
            ):
                row["less_centre"] = gap(0.0)
        study["patching"]["models"]["vit"]["maps"]["relevance"][IOU]["less_centre"] = less
        table = report.sections(study)[7].tables[0]
        assert column(table, "better than the centre", ("ViT relevance", "IoU, top 20%")) == flag
        assert column(table, "better than the centre", ("ViT centre prior", "IoU, top 20%")) == ""
        assert findings(study)[7].endswith(named)

    def test_outlier_tokens_are_flagged_by_block(self, study):
        norms, attention, maps = report.sections(study)[8].tables
        assert column(norms, "any outlier") == ["no"] * 3 + ["yes"] * 3
        assert column(attention, "outliers above 1") == [""] * 3 + ["yes"] * 3
        assert column(maps, "outliers less median", ("ViT rollout",)).startswith("+0.300")
        assert findings(study)[8].endswith(": ViT 12 of 200.")

    def test_models_without_outliers_or_without_attention_say_so(self, study):
        study["sinks"]["models"]["vit"] |= {"late": 0, "maps": {}}
        section = report.sections(study)[8]
        assert len(section.tables) == 2
        assert "CNN (none of its layers returns attention weights)" in section.text[1]
        assert "No patch is an outlier" in section.text[2]
        del study["sinks"]["models"]["vit"]
        assert (report.sections(study)[8].figures, findings(study)[8][-6:]) == ((), " none.")

    @pytest.mark.parametrize(
        ("centre", "fill", "flag"),
        [
            ((0.7, 0.66, 0.74), (0.6, 0.55, 0.65), "yes"),
            ((0.7, 0.64, 0.76), (0.6, 0.55, 0.65), "no"),
            ((0.5, 0.45, 0.55), (0.6, 0.56, 0.65), "no"),
            ((0.9, None, None), (0.6, None, None), ""),
        ],
    )
    def test_the_centre_alone_is_compared_with_the_fill_alone(self, study, centre, fill, flag):
        tested = study["causal"]["models"]["cnn"]
        tested["hiding"][0]["hidden"]["rim"]["roc_auc"] = dict(zip(("value", "low", "high"), centre, strict=True))
        tested["all_hidden"]["blur"]["roc_auc"] = dict(zip(("value", "low", "high"), fill, strict=True))
        assert tables.occlusion_tables(study)[1].rows[0][-1] == flag

    def test_a_twin_that_learned_from_less_is_flagged(self, study):
        flag = ("CNN",)
        assert column(tables.environment_tables(study)[0], "twin trained alike", flag) == "yes"
        study["models"]["cnn"]["twin"]["training"]["epochs"] = 1
        assert column(tables.environment_tables(study)[0], "twin trained alike", flag) == "no"
        assert column(tables.environment_tables(study)[0], "twin trained alike", ("ViT",)) == ""


def test_there_is_one_finding_for_each_measured_part(study):
    assert len(findings(study)) == 9
    for part in PARTS:
        del study[part]
    assert len(findings(study)) == len(report.sections(study)) == 1


def test_undefined_numbers_are_named(study):
    for pair in pairs_of(study):
        pair["measures"] = {name: dict.fromkeys(found, mean(None)) for name, found in pair["measures"].items()}
        pair["right_less_wrong"] = {IOU: mean(None)}
    for plantings in study["planted"]["models"].values():
        for found in plantings.values():
            undefined = {
                kind: dict.fromkeys(("hits", "mass", "roc_auc"), mean(None))
                for kind in ("planted", "control", "difference")
            }
            found["methods"] = dict.fromkeys(found["methods"], undefined)
    text = report.to_markdown(study)
    assert "undefined" in text
    assert not re.search("None|nan", text)


def test_the_markdown_contains_the_open_tables_of_each_part(study):
    text = report.to_markdown(study)
    sections = report.sections(study)
    assert [line for line in text.splitlines() if line.startswith("#")] == [f"### {part.title}" for part in sections]
    for table in (table for part in sections for table in part.tables):
        assert (table.caption in text) is not table.folded


@pytest.mark.parametrize("parts", [("agreement", *PARTS), PARTS])
def test_a_published_study_is_results_table_page_and_figure(study, tmp_path, monkeypatch, parts):
    monkeypatch.setattr(report, "write_study_page", lambda *words: words[-1])
    results = {name: part for name, part in study.items() if name != "agreement" or name in parts}
    files = {name: tmp_path / "out" / name for name in ("study.json", "study.html", "study.png")}
    arguments = StudyArguments(
        tmp_path, compare=["cnn=a"], results_file=files["study.json"], page_file=files["study.html"],
        figure_file=files["study.png"],
    )  # fmt: skip
    said = report.publish_study(results, (), arguments)
    assert read_json(files["study.json"]) == results
    assert (tmp_path / "out/study.md").read_text() == report.to_markdown(results) + "\n"
    assert files["study.png"].exists() is ("agreement" in parts)
    assert said[:-1] == findings(results)
    assert str(files["study.json"]) in said[-1]


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """Figures of few pixels, which are fast to draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_parts, "DPI", 50)
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    return report.write_study_page(made_up_study(), made_up_gallery(NASTY), folder / "made/page.html")


@pytest.fixture(scope="module")
def page(file):
    return Page(file.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_it_loads_nothing_from_outside(file, page):
    text = file.read_text(encoding="utf-8")
    assert re.findall(r"(?:https?:)?//[a-z]", re.sub(r"data:[^\"]*", "", text)) == []
    sources = [one.get(name) for _, one in page.tags for name in ("src", "srcset", "href") if one.get(name)]
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert page.all("script") == []


@pytest.mark.slow
def test_every_figure_has_a_description_its_n_and_a_dark_twin(page):
    shown = [figure for part in report.sections(made_up_study()) for figure in part.figures]
    assert [image["alt"] for image in page.all("img")][: len(shown)] == [figure.alt for figure in shown]
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("source")) == len(shown)
    assert all(re.search(r"\bn = \d|n is given below", figure.caption) and figure.reading for figure in shown)


@pytest.mark.slow
def test_the_contents_link_to_every_section(page):
    assert [link["href"] for link in page.all("a")][:11] == [
        "#agreement", "#faithfulness", "#sanity", "#planted", "#grids", "#causal", "#entity", "#patching", "#sinks",
        "#gallery", "#passport",
    ]  # fmt: skip
    assert {f"#{heading['id']}" for heading in page.all("h2")} - {"#findings"} == {
        link["href"] for link in page.all("a")
    }


@pytest.mark.slow
def test_names_are_escaped(file, page):
    assert NASTY not in file.read_text(encoding="utf-8")
    assert sum(NASTY in text for text in page.text) == 3


@pytest.mark.slow
def test_numbers_of_every_part_are_in_its_tables(page):
    cells = " ".join(page.text)
    hits = made_up_study()["planted"]["models"]["vit"]["fake in real"]["methods"]["relevance"]["planted"]["hits"]
    for number in (tables.cell(hits, ".1%"), "+0.030 (+0.018 to +0.042)", "490, 10 undefined", "1,234.5"):
        assert number in cells, number
    assert not any(word in cells for word in ("None", "nan", "{'"))


@pytest.mark.slow
def test_the_gallery_groups_images_by_the_models_that_misclassify_them(page):
    groups = ["Classified correctly", "Misclassified by CNN", "Misclassified by CNN and ViT"]
    assert sorted(groups, key=page.words.index) == groups
    assert "CNN: FAKE, p(fake) 0.900; ViT: FAKE, p(fake) > 0.999" in page.words
    assert page.words.count("ViT last attention: empty map") == 3


@pytest.mark.slow
def test_missing_parts_are_left_out(tmp_path):
    agreement = {name: part for name, part in made_up_study().items() if name not in PARTS}
    page = Page(report.write_study_page(agreement, [], tmp_path / "page.html").read_text(encoding="utf-8"))
    assert [heading["id"] for heading in page.all("h2")] == ["findings", "agreement", "passport"]
    assert len(page.all("img")) == 3


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize(("size", "dark"), [((360, 740), False), ((1280, 900), True)])
@pytest.mark.slow
def test_in_a_browser_nothing_is_broken_and_the_page_does_not_scroll_sideways(file, page, tmp_path, size, dark):
    found = seen(file, tmp_path, size=size, dark=dark)
    assert (found["images"], found["broken"]) == (len(page.all("img")), 0)
    assert found["width"] == found["client"] <= size[0]
    assert found["dark"] == (len(page.all("source")) if dark else 0)
    assert found["ground"] == ("rgb(22, 24, 28)" if dark else "rgb(255, 255, 255)")
    assert found["small"] == 0
