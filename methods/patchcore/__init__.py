"""PatchCore on CLIP features: a memory of normal patches, few-shot."""
