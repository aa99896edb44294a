"""Resumable batch scoring of any number of images, part by part, in one process or many."""
