"""Ranking: how well a caption fits a recording, and which of several candidates comes first.

    similarity.py         cosine of recording and caption in a space that was trained for it
    clap_similarity.py    the same in the space of a published CLAP
    agreement.py          minimum Bayes risk: a candidate's agreement with the other candidates
    hybrid.py             the weighted sum of similarity, likelihood and agreement
    error_filter.py       candidates in which a detector finds errors of language come last
    error_detection.py    a detector: the one published with FENSE
    rule_based_errors.py  a detector: rules alone
    trigram_errors.py     a detector: the word order of captions without errors
    detectors.py          detectors by name
    settings.py           all of this as the settings of a call

What was used to select captions never evaluates them in the same table. Captions chosen by a
similarity have a high similarity whether or not they are any better, captions that agree with one
another have high n-gram scores against references of the same style, and captions that passed a
detector pass it again in FENSE. A table says what ranked its captions, and judges them by
something else.
"""
