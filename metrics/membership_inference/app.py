"""The Space of the module: a page on which to try it."""

from memtax.hub.space import page

demo = page(__file__, "membership_inference")

if __name__ == "__main__":
    demo.launch()
