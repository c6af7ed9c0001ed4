"""Training: `examples` (what is learned), `schedule` (in which order), `loop` (what one worker runs), `trainer`
(Ray Train). Pretraining, reconstruction and fine-tuning differ in their rows only.

Under the loop: `loss` (of a batch), `parallel` (one model on several workers), `checkpoint`, `throughput`.
"""
