import os

from proxy.randomness import random_hex


def test_no_bytes_are_given_out_twice() -> None:
    given = [random_hex(16) for _ in range(10_000)]
    assert len(set(given)) == len(given)
    assert {len(each) for each in given} == {32}


def test_a_forked_process_gives_out_others() -> None:
    random_hex(1)
    reading, writing = os.pipe()
    if not os.fork():
        os.write(writing, random_hex(16).encode())
        os._exit(0)
    os.wait()
    assert os.read(reading, 100).decode() != random_hex(16)
    os.close(reading)
    os.close(writing)
