"""Right, blank and wrong answers to the exercises of lesson 04."""

from tlcourse.checks import lesson04


def start(model, held):
    model.train()
    for module in held:
        module.eval()


def wrong_order(model, held):
    for module in held:
        module.eval()
    model.train()


def all_eval(model, held):
    model.eval()


def forgot_train(model, held):
    for module in held:
        module.eval()


def outer_only(model, held):
    model.train()
    for module in held:
        module.training = False


def rising(step, warmup_steps):
    return min(step / warmup_steps, 1.0) if warmup_steps else 1.0


def later(formula):
    return lambda step, warmup: formula(step, warmup) if warmup else 1.0


RIGHT = [
    (lesson04.check_start_epoch, start),
    (lesson04.check_rising, rising),
    (lesson04.check_speedup, lambda n, below, above: n * (below + above) / (below + n * above)),
]
BLANK = [
    (lesson04.check_start_epoch, lambda model, held: ...),
    (lesson04.check_rising, lambda step, warmup_steps: ...),
    (lesson04.check_speedup, lambda epochs, below, above: ...),
]
WRONG = [
    (lesson04.check_start_epoch, wrong_order, "must come first"),
    (lesson04.check_start_epoch, all_eval, "everything is in eval mode"),
    (lesson04.check_start_epoch, forgot_train, "everything is in eval mode"),
    (lesson04.check_start_epoch, outer_only, "only the outer flag"),
    (lesson04.check_start_epoch, 3, "expected a function"),
    (lesson04.check_rising, later(lambda s, w: min((s + 1) / w, 1)), "already has"),
    (lesson04.check_rising, later(lambda s, w: s / w), "must stop rising"),
    (lesson04.check_rising, later(lambda s, w: min(s / (w + 1), 0.8)), "never reached"),
    (lesson04.check_rising, lambda s, w: min(s / w, 1), "divides by zero"),
    (lesson04.check_rising, lambda s, w: min(s / w, 1) if w else 0.0, "without warmup expected 1"),
    (lesson04.check_rising, lambda s, w: 1.0, "at step 0"),
    (lesson04.check_rising, later(lambda s, w: min((s / w) ** 2, 1)), "expected 0.5"),
    (lesson04.check_rising, later(lambda s, w: s / w if s <= w else 0.3), "must stay 1"),
    (lesson04.check_speedup, lambda n, b, a: (b + a) / a, "leaves out the one pass"),
    (lesson04.check_speedup, lambda n, b, a: (b + n * a) / (n * (b + a)), "turned round"),
    (lesson04.check_speedup, lambda n, b, a: (n - 1) * b, "seconds saved"),
    (lesson04.check_speedup, lambda n, b, a: n * (b + a) / b, "above still trains"),
    (lesson04.check_speedup, lambda n, b, a: 7, "got 7"),
]
