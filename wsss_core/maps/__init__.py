"""Maps of images: their form on disk, their sizes, the inference that makes them, the CRF that refines them."""
