"""Questions about the clips of the task of motion, in the files that `clipvip-eval` reads."""

from pathlib import Path

from clipvip.experiments.demo.corpus import plan_videos
from clipvip.experiments.demo.texts import action
from clipvip.experiments.demo.world import World, chance_of
from clipvip.shards.files.atomic import atomic_write_bytes, write_jsonl

QUESTIONS_NAME, CLASSES_NAME, LABELS_NAME = "questions.jsonl", "actions.txt", "actions.jsonl"
_NUM_OPTIONS = 5


def write_questions(world: World, folder: Path) -> None:
    """Write to `folder`, for a world of twins: which of five descriptions is that of a test clip, its twin's
    among them; the motions as names of classes; and the class of each test clip.
    """
    videos = plan_videos(world, "test")
    chance = chance_of(world, "questions")
    questions, labels = [], []
    # A video is followed by its twin, whose clips are in the same order.
    for number, video in enumerate(videos):
        twin = videos[number ^ 1]
        for clip, reverse in zip(video.clips, twin.clips, strict=True):
            others = [
                other.description
                for some in videos
                for other in some.clips
                if (other.scene.appearance, other.scene.motion)
                not in {(c.scene.appearance, c.scene.motion) for c in (clip, reverse)}
            ]
            answer = chance.randrange(_NUM_OPTIONS)
            options = [reverse.description, *chance.sample(others, _NUM_OPTIONS - 2)]
            chance.shuffle(options)
            options.insert(answer, clip.description)
            questions.append({"video": clip.clip_id, "options": options, "answer": answer})
            labels.append({"video": clip.clip_id, "label": action(clip.scene.motion)})
    write_jsonl(folder / QUESTIONS_NAME, questions)
    write_jsonl(folder / LABELS_NAME, labels)
    names = "".join(f"{action(motion)}\n" for motion in world.motions)
    atomic_write_bytes(folder / CLASSES_NAME, names.encode())
