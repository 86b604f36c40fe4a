# From a fresh machine to a result: `make demo`. Rust must be there (rustup); the rest is installed where it is missing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup build demo test fuzz campaign test-camera test-aarch64 cross deb test-deb soak test-tools test-export pretrained lint deny clean

CARGO = cargo
AFTERIMAGE = target/release/afterimage
ENCODER = models/moco-mobilenetv2.onnx

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile

setup: ## install what is missing (Debian, Ubuntu); does nothing when all is there
	@tools/setup.sh

build: setup ## the binary, target/release/afterimage
	$(CARGO) build --release --locked

demo: build ## learn from the bundled clip and from the bundled labelled set, and show what was gained
	@echo; echo "== A street camera, 80 seconds: $(AFTERIMAGE) learn --source data/street.mp4"
	rm -rf runs/street
	$(AFTERIMAGE) learn --source data/street.mp4 --encoder $(ENCODER) --out runs/street
	$(AFTERIMAGE) contact-sheet --run runs/street --source data/street.mp4 --out runs/street/sheet.png
	@echo; echo "== Things passing a fixed camera in changing light: learns without labels, is then measured with them"
	rm -rf runs/objects
	$(AFTERIMAGE) learn --source data/objects/stream --encoder $(ENCODER) --out runs/objects
	$(AFTERIMAGE) contact-sheet --run runs/objects --source data/objects/stream --out runs/objects/sheet.png
	$(AFTERIMAGE) eval --data data/objects --run runs/objects
	@echo; echo "Done. Each run has its folder: runs/street and runs/objects."
	@echo "  sheet.png        frames with their neighbours, frozen against adapted"
	@echo "  embeddings/      NNNN.npy with one row a frame, NNNN.jsonl with one record a row"
	@echo "  heads/, latest   the heads that were promoted; journal.jsonl says when and why"
	@echo "  maps/            for afterimage migrate: stored embeddings into the space of a newer head"

test: setup ## every test, with the real binary and the bundled data; REQUIRE_ALL=1: what is skipped fails
	tools/list_skipped.sh $(CARGO) test --release --locked

fuzz: ## every parser under libFuzzer, SECONDS=2 each (fuzz/run.py --help)
	fuzz/run.py --seconds $(or $(SECONDS),2)

campaign: build ## kills, mishaps, strangers, brokers, full disks, a month of latents, fuzzing: MINUTES=5 in all (docs/reliability.md)
	$(CARGO) build --release --locked --example months
	tools/campaign/campaign.py --minutes $(or $(MINUTES),5)

test-camera: build ## live cameras, in a virtual machine with a camera (root; skipped where there can be none)
	tools/list_skipped.sh tools/camera_vm/test.sh

cross: ## the binary for 64-bit Arm boards (cross, or Debian's cross toolchain)
	@tools/cross.sh
	@ls -l target/cross/aarch64-unknown-linux-gnu/release/afterimage

test-aarch64: build ## the same binary under emulation, compared with this machine's (Debian, x86-64)
	tools/list_skipped.sh tools/test_aarch64.sh

deb: build ## Debian packages for this machine and for 64-bit Arm, in target/deb
	tools/deb.sh
	tools/deb.sh arm64

test-deb: deb ## lintian, and install, run, upgrade, remove and purge in a Debian of its own (root)
	tools/list_skipped.sh tools/test_deb.sh target/deb/afterimage_*.deb

soak: build ## an hour of live synthetic frames: in the second half memory and open files must stay level (tools/soak.py --help)
	tools/soak.py

# Python tools, each set of packages in an environment of its own (.venv is not committed).
.venv/%/ready: tools/requirements.txt tools/requirements-torch.txt
	python3 -m venv --clear .venv/$*
	.venv/$*/bin/pip install --quiet --disable-pip-version-check --no-deps -r tools/requirements$(if $(filter torch,$*),-torch).txt
	touch $@

test-tools: .venv/tools/ready ## the Python tools that need no PyTorch (600 MB of packages; the program must be built)
	cd tools && ./list_skipped.sh ../.venv/tools/bin/python -W ignore -m unittest discover -t . -s tests

test-export: .venv/torch/ready ## all Python tools, with PyTorch (4.3 GB of packages; the program must be built)
	cd tools && ./list_skipped.sh ../.venv/torch/bin/python -W ignore -m unittest discover -t . -s tests

pretrained: .venv/torch/ready ## train the two bundled encoders of our own anew, into runs/pretraining (needs ffmpeg, opencv-doc)
	tools/pretrain_bundled.sh runs/pretraining

lint: setup ## format, clippy, rustdoc; no warning is let through
	cargo fmt --all --check
	$(CARGO) clippy --release --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --no-deps

deny: ## licences, sources and versions of dependencies (cargo-deny)
	tools/list_skipped.sh tools/check_dependencies.sh

clean: ## remove what was built and what the demo wrote
	cargo clean
	rm -rf runs/street runs/objects
