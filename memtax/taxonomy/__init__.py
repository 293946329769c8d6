"""Why a sequence was memorized: labels, and the models that predict memorization from factors."""
