"""Secure aggregation: the server learns the sum of a cohort's vectors, nothing else.

In ``common`` because both sides do this arithmetic; ``client/secagg.py`` masks and
``server/secagg.py`` unmasks. Double masking after Bonawitz et al., *Practical Secure
Aggregation for Privacy-Preserving Machine Learning*, CCS 2017; few neighbours each
after Bell et al., *Secure Single-Server Aggregation with (Poly)Logarithmic Overhead*,
CCS 2020. Nothing here knows Flower: every message is bytes.

Both sides make the same :class:`terms.Terms` from the run's public configuration (the
client from its own copy, never from the server's message). One round, where ``state``
is the client's and its ``to_bytes`` is kept between messages::

    sum_ = SecureSum(terms, roster)                      # server
    step = advertise(state, terms, identity)             # client: state, reply
    sum_.add_advert(node, step.reply)                    # ProtocolError: drop it
    for node, message in sum_.to_share().items():        # RoundFailed: too few
        step = share(step.state, message, roster)
        sum_.add_shares(node, step.reply)
    for node, message in sum_.to_mask().items():
        step = mask(step.state, message, vector)
        sum_.add_masked(node, step.reply)
    for node, message in sum_.to_confirm().items():      # with a roster only
        step = confirm(step.state, message, identity)
        sum_.add_confirmation(node, step.reply)
    for node, message in sum_.to_reveal().items():
        step = reveal(step.state, message)
        sum_.add_reveal(node, step.reply)
    sum_.result()                                        # values, survivors

Between two ``to_…`` calls any client may fall silent and any message may be refused.
``terms`` has the public numbers, ``bounds`` chooses neighbours and thresholds,
``graph`` says who is whose neighbour, ``keys`` draws and derives, ``shares`` is Shamir,
``masks`` the key streams, ``ring`` the integers and their packing, ``messages`` what is
sent, ``trust`` the sentence that says against whom all this holds.
"""
