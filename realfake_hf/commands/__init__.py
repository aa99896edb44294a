"""The commands of `realfake`; train.py, explain.py and crosseval.py run three of them."""
