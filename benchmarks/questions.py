"""Sixty questions as people ask them, for benchmarks that need real prompts: facts, advice, code, sums, writing."""

from __future__ import annotations

QUESTIONS = tuple(
    line.strip()
    for line in """
    Why is the sky blue?
    How do vaccines work?
    What is the difference between weather and climate?
    Explain photosynthesis to a ten-year-old.
    Who built the pyramids of Giza, and why?
    What causes the tides?
    How does a refrigerator keep food cold?
    Why did the Roman Empire fall?
    What is inflation, and who suffers most from it?
    Describe how bread is made, step by step.
    Give me a recipe for a simple vegetable soup.
    How can I sleep better?
    I have a job interview tomorrow. How should I prepare?
    Plan three days in Lisbon for a family with two small children.
    My houseplant has yellow leaves. What might be wrong?
    How do I learn to play the guitar as an adult?
    What should I look for when I buy a used bicycle?
    Write a polite e-mail to my landlord about a broken heater.
    Write a short story about a lighthouse keeper who finds a letter.
    Write a poem about the first snow of the year.
    Suggest ten names for a small bakery.
    Summarize the plot of Romeo and Juliet.
    What is the moral of the story of the tortoise and the hare?
    Explain what a black hole is without using mathematics.
    How many hours are there in a leap year? Show your work.
    A train travels 180 km in 2.5 hours. What is its average speed?
    If three apples cost 2.40 euros, what do seven apples cost?
    Solve 3x + 7 = 25 and explain each step.
    What is the sum of the integers from 1 to 100?
    A shirt costs 40 dollars after a discount of 20 percent. What did it cost before?
    Is 221 a prime number?
    Write a Python function that reverses a string.
    Write a Python function that returns the n-th Fibonacci number.
    Explain the difference between a list and a tuple in Python.
    What does the SQL keyword JOIN do? Give an example.
    How does a hash table work?
    What is recursion? Give an example in any language.
    Write a regular expression that matches an e-mail address, and explain it.
    What happens when I type an address into a web browser?
    Explain Git branches to somebody who has never used version control.
    List the planets of the solar system with one fact about each.
    List five inventions of the nineteenth century and say why they mattered.
    Compare cats and dogs as pets.
    What are the advantages and disadvantages of nuclear power?
    Should children learn a second language early?
    What is the difference between a virus and a bacterium?
    Why do leaves change their colour in autumn?
    How does the human heart work?
    What is the capital of Australia, and why is it not Sydney?
    Tell me about the history of chess.
    Who was Marie Curie?
    What did the Magna Carta change?
    How do bees make honey?
    What is a balanced diet?
    Explain supply and demand with an example.
    How does a bill become a law in a parliament?
    What should I pack for a week of hiking in the mountains?
    Tell me a joke, and explain why it is funny.
    Translate "Good morning, how are you?" into French, German and Spanish.
    What would happen if the Moon disappeared?
    """.strip().splitlines()
)
