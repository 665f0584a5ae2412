"""Bundled tracker: conversion of its weights and comparison with MediaPipe; not needed to train."""
