"""Muons, their hits and the generators that make them."""

from diffdet.tomography.muon.generation import AbsMuonGenerator as AbsMuonGenerator
from diffdet.tomography.muon.generation import MuonGenerator2015 as MuonGenerator2015
from diffdet.tomography.muon.generation import MuonGenerator2016 as MuonGenerator2016
from diffdet.tomography.muon.hits import HitBatch as HitBatch
from diffdet.tomography.muon.muon_batch import MuonBatch as MuonBatch
