"""What the demo model can talk about: colours, shapes, places, characters and the wording of questions.

Every question template exists in a training list and in a held-out list: the held-out wordings are
used by tools/eval_demo.py only, never by train.py. `{}` fields: c colour, s shape, ss shapes,
a / b "red circle", l bar label.
"""

# name: (RGB, Chinese)
COLOURS = {
    "red": ((215, 35, 35), "红色"),
    "green": ((40, 160, 60), "绿色"),
    "blue": ((40, 75, 215), "蓝色"),
    "yellow": ((245, 215, 40), "黄色"),
    "orange": ((245, 130, 20), "橙色"),
    "purple": ((130, 45, 165), "紫色"),
    "pink": ((250, 150, 195), "粉色"),
    "brown": ((120, 70, 30), "棕色"),
    "black": ((18, 18, 18), "黑色"),
    "white": ((248, 248, 248), "白色"),
}
COLOUR_NAMES = list(COLOURS)

# name: (plural, Chinese)
SHAPES = {
    "circle": ("circles", "圆形"),
    "square": ("squares", "正方形"),
    "triangle": ("triangles", "三角形"),
    "star": ("stars", "星形"),
    "diamond": ("diamonds", "菱形"),
    "cross": ("crosses", "十字形"),
    "heart": ("hearts", "心形"),
    "ring": ("rings", "圆环"),
}
SHAPE_NAMES = list(SHAPES)

# index = row * 3 + column of a 3 x 3 grid over the picture
PLACES = ["top left", "top", "top right", "left", "center", "right",
          "bottom left", "bottom", "bottom right"]
PLACES_ZH = ["左上角", "上方", "右上角", "左边", "中间", "右边", "左下角", "下方", "右下角"]

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

# the characters that may be printed in a picture: 150
ZH_CHARS = (
    "天地人大小上下左右中日月水火山石田土木金"
    "红黄蓝绿白黑一二三四五六七八九十百千万年"
    "春夏秋冬东西南北风雨雪云花草树林鸟鱼马牛"
    "羊狗猫虎龙家门车船飞机电灯书本笔文字学校"
    "老师生男女父母子友爱心手足口耳目头身衣食"
    "米面茶酒果瓜菜肉蛋奶早晚今明好坏高低长短"
    "多少新旧来去出入开关走看听说读写吃喝坐立"
    "国城市路店医药光星海")
ZH_CHARS = "".join(dict.fromkeys(ZH_CHARS))
LATIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
CHARS = "0123456789" + LATIN + ZH_CHARS
CHAR_ID = {c: i for i, c in enumerate(CHARS)}

# task: {language: (training wordings, held-out wordings)}
Q = {
    "caption": {
        "en": (["Describe the picture.", "Describe this image.", "What is in the picture?",
                "What do you see?", "What does the image show?", "Caption this picture.",
                "What can be seen here?", "Tell me what is in this image."],
               ["Describe what you see in this image.", "What does this picture show?"]),
        "zh": (["描述这张图片。", "图中有什么？", "请描述图片内容。", "你看到了什么？", "这张图里有什么？"],
               ["请描述这张图。", "图片里有什么？"]),
    },
    "colour": {
        "en": (["What color is the {s}?", "What colour is the {s}?", "Which color is the {s}?",
                "Tell me the color of the {s}.", "What is the colour of the {s}?",
                "The {s} has which color?", "Name the color of this {s}."],
               ["What is the color of the {s}?", "Which colour does the {s} have?"]),
        "zh": (["{s}是什么颜色？", "{s}的颜色是什么？", "图中{s}是什么颜色的？", "请说出{s}的颜色。"],
               ["图中的{s}是什么颜色？", "这个{s}是什么颜色？"]),
    },
    "shape": {
        "en": (["What shape is {c}?", "Which shape is {c}?", "What is the {c} shape?",
                "Name the {c} shape.", "What is the shape of the {c} thing?",
                "Tell me which shape is {c}."],
               ["Which shape has the color {c}?", "Tell me the {c} shape."]),
        "zh": (["{c}的是什么形状？", "什么形状是{c}的？", "{c}的图形是什么？", "图中{c}的是什么？"],
               ["图中{c}的图形是什么形状？", "{c}的形状是什么？"]),
    },
    "shape1": {
        "en": (["What shape is this?", "Which shape do you see?", "Name the shape.",
                "What is the shape in the picture?"], ["What shape is in this image?"]),
        "zh": (["这是什么形状？", "图中是什么形状？", "请说出图中的形状。"], ["这张图里是什么形状？"]),
    },
    "count": {
        "en": (["How many {ss} are there?", "Count the {ss}.", "How many {ss} do you see?",
                "What is the number of {ss}?", "How many {ss} are in the picture?",
                "Tell me how many {ss} there are."],
               ["How many {ss} can be seen?", "How many {ss} does this image show?"]),
        "zh": (["有几个{s}？", "图中有几个{s}？", "数一数有多少个{s}。", "{s}有几个？", "图里有多少个{s}？"],
               ["图片里有几个{s}？", "图中{s}有多少个？"]),
    },
    "exist": {
        "en": (["Is there a {a}?", "Do you see a {a}?", "Is there a {a} in the picture?",
                "Does the image show a {a}?", "Can you see a {a}?", "Is a {a} in this image?"],
               ["Does this picture show a {a}?", "Can a {a} be seen here?"]),
        "zh": (["有{a}吗？", "图中有{a}吗？", "图里有没有{a}？", "你看到{a}了吗？"],
               ["图片里有{a}吗？", "这张图里有没有{a}？"]),
    },
    "left": {
        "en": (["Is the {a} left or right of the {b}?", "Is the {a} on the left or the right of the {b}?",
                "Left or right: where is the {a} seen from the {b}?"],
               ["Is the {a} to the left or to the right of the {b}?"]),
        "zh": (["{a}在{b}的左边还是右边？", "{b}的左边还是右边有{a}？"], ["图中{a}在{b}的左边还是右边？"]),
    },
    "above": {
        "en": (["Is the {a} above or below the {b}?", "Above or below: where is the {a} seen from the {b}?",
                "Is the {a} higher or lower, above or below the {b}?"],
               ["In the picture, is the {a} above or below the {b}?"]),
        "zh": (["{a}在{b}的上面还是下面？", "{b}的上面还是下面有{a}？"], ["图中{a}在{b}的上面还是下面？"]),
    },
    "isleft": {
        "en": (["Is the {a} left of the {b}?", "Is the {a} on the left of the {b}?"],
               ["Is the {a} to the left of the {b}?"]),
        "zh": (["{a}在{b}的左边吗？", "{a}是不是在{b}的左边？"], ["图中{a}在{b}的左边吗？"]),
    },
    "isright": {
        "en": (["Is the {a} right of the {b}?", "Is the {a} on the right of the {b}?"],
               ["Is the {a} to the right of the {b}?"]),
        "zh": (["{a}在{b}的右边吗？", "{a}是不是在{b}的右边？"], ["图中{a}在{b}的右边吗？"]),
    },
    "isabove": {
        "en": (["Is the {a} above the {b}?", "Is the {a} higher than the {b}?"],
               ["In the picture, is the {a} above the {b}?"]),
        "zh": (["{a}在{b}的上面吗？", "{a}是不是在{b}的上面？"], ["图中{a}在{b}的上面吗？"]),
    },
    "isbelow": {
        "en": (["Is the {a} below the {b}?", "Is the {a} lower than the {b}?"],
               ["In the picture, is the {a} below the {b}?"]),
        "zh": (["{a}在{b}的下面吗？", "{a}是不是在{b}的下面？"], ["图中{a}在{b}的下面吗？"]),
    },
    "place": {
        "en": (["Where is the {a}?", "Where is the {a} in the picture?",
                "In which part of the image is the {a}?", "Tell me where the {a} is.",
                "What is the position of the {a}?"],
               ["Where in the picture is the {a}?", "In which part of the picture do you see the {a}?"]),
        "zh": (["{a}在哪里？", "{a}在图中的什么位置？", "图中{a}在哪里？", "请说出{a}的位置。"],
               ["{a}在图片的什么位置？", "{a}的位置在哪里？"]),
    },
    "at": {
        "en": (["What is in the {p}?", "Which shape is in the {p} of the picture?", "What is at the {p}?",
                "Name the thing in the {p}."],
               ["What do you see in the {p} of the image?"]),
        "zh": (["{p}是什么？", "图中{p}有什么？", "{p}的图形是什么？"], ["图片的{p}有什么？"]),
    },
    "biggest": {
        "en": (["What is the biggest shape?", "Which shape is the largest?", "Name the biggest shape."],
               ["Which is the largest shape in the picture?"]),
        "zh": (["最大的图形是什么？", "哪个图形最大？"], ["图中最大的图形是什么？"]),
    },
    "box": {
        "en": (["Give the bounding box of the {a}.", "Locate the {a}, output its bbox in JSON.",
                "Detect the {a} in JSON format.", "Find the {a} and give its box.",
                "Output the bounding box of the {a} in JSON format.", "Locate the {a}."],
               ["Locate the {a} and output its bounding box in JSON format.",
                "Give the box of the {a} in JSON."]),
        "zh": (["给出{a}的边框。", "用JSON格式给出{a}的边框。", "检测{a}，输出JSON。", "找到{a}并给出边框。"],
               ["请找到{a}，用JSON格式输出边框。"]),
    },
    "boxes": {
        "en": (["Give the bounding boxes of all the {ss}.", "Detect all {ss} in JSON format.",
                "Locate every {s}.", "Find all {ss} and give their boxes."],
               ["Locate all the {ss} and output the bounding boxes in JSON format."]),
        "zh": (["给出所有{s}的边框。", "检测所有{s}，输出JSON。", "找到所有{s}并给出边框。"],
               ["请找到所有{s}，用JSON格式输出边框。"]),
    },
    "word": {
        "en": (["Read the text.", "What does it say?", "What is written here?", "Read the word.",
                "What word is this?", "What is the word in the picture?", "What text do you see?"],
               ["What is written in the picture?", "Read the word in this image."]),
        "zh": (["图中写了什么？", "读出图中的文字。", "图中的单词是什么？", "写的是什么？"],
               ["图片里写了什么？", "请读出图中的单词。"]),
    },
    "number": {
        "en": (["What number is this?", "Read the number.", "What is the number in the picture?",
                "Which number do you see?", "What does it say?", "Read the text.", "Read the digits."],
               ["Which number is written here?", "Read the number in this image."]),
        "zh": (["图中的数字是什么？", "读出这个数字。", "这是什么数字？", "图中写了什么？"],
               ["请读出图中的数字。", "图片里的数字是什么？"]),
    },
    "zh": {
        "en": (["Read the Chinese text.", "What does it say?", "Read the text.", "What is written here?",
                "What Chinese characters are these?"],
               ["What is written in the picture?", "Which Chinese characters do you see?"]),
        "zh": (["图中的文字是什么？", "读出图中的文字。", "图中写了什么？", "写的是什么字？", "这是什么字？"],
               ["请读出图中的文字。", "图片里写了什么字？"]),
    },
    "value": {
        "en": (["What is the value of {l}?", "What is the value of bar {l}?", "Read the value of {l}.",
                "What value does {l} have?", "How high is bar {l}?", "Tell me the value of {l}."],
               ["Which value does bar {l} have?", "What is the height of bar {l}?"]),
        "zh": (["{l}的值是多少？", "柱子{l}的值是多少？", "{l}是多少？", "图中{l}的数值是多少？"],
               ["请读出{l}的值。", "{l}的数值是多少？"]),
    },
    "tallest": {
        "en": (["Which bar is the tallest?", "Which bar is the highest?", "What is the tallest bar?",
                "Which bar has the largest value?"],
               ["Which is the tallest bar in the chart?", "Which bar has the highest value?"]),
        "zh": (["哪个柱子最高？", "最高的柱子是哪个？", "哪个的值最大？"], ["图中哪个柱子最高？"]),
    },
    "shortest": {
        "en": (["Which bar is the shortest?", "Which bar is the lowest?", "What is the shortest bar?",
                "Which bar has the smallest value?"],
               ["Which is the shortest bar in the chart?", "Which bar has the lowest value?"]),
        "zh": (["哪个柱子最低？", "最低的柱子是哪个？", "哪个的值最小？"], ["图中哪个柱子最低？"]),
    },
    "bars": {
        "en": (["How many bars are there?", "Count the bars.", "How many bars does the chart have?"],
               ["How many bars do you see in the chart?"]),
        "zh": (["有几个柱子？", "图中有几个柱子？", "数一数有多少个柱子。"], ["图表里有几个柱子？"]),
    },
    "trend": {
        "en": (["Do the values go up or down?", "Is the trend up or down?", "Do the bars go up or down?"],
               ["Do the values in the chart go up or down?"]),
        "zh": (["数值是上升还是下降？", "趋势是上升还是下降？"], ["图中的数值是上升还是下降？"]),
    },
    "chart": {
        "en": (["Read the chart.", "List all the values.", "What are the values in the chart?",
                "Read all the bars."],
               ["List the values of all the bars."]),
        "zh": (["读出图表。", "列出所有的值。", "图表中的值是多少？"], ["请读出图中所有的值。"]),
    },
    "barcolour": {
        "en": (["What color is bar {l}?", "Which color is the bar {l}?"], ["What is the color of bar {l}?"]),
        "zh": (["柱子{l}是什么颜色？", "{l}是什么颜色？"], ["图中{l}的柱子是什么颜色？"]),
    },
}

# further training wordings; the tokenizer's merges are made from Q alone
MORE = {
    "left": {"en": ["Where is the {a}, left or right of the {b}?", "Does the {a} lie left or right of the {b}?",
                    "On which side of the {b} is the {a}, left or right?",
                    "Compared to the {b}, is the {a} on the left or the right?"],
             "zh": ["{a}位于{b}的左边还是右边？", "与{b}相比，{a}在左边还是右边？"]},
    "above": {"en": ["Where is the {a}, above or below the {b}?", "Does the {a} lie above or below the {b}?",
                     "Compared to the {b}, is the {a} above or below?"],
              "zh": ["{a}位于{b}的上面还是下面？", "与{b}相比，{a}在上面还是下面？"]},
    "isleft": {"en": ["Does the {a} lie left of the {b}?", "Do you see the {a} on the left of the {b}?",
                      "Is the {a} on the left side, seen from the {b}?"], "zh": ["{a}位于{b}的左边吗？"]},
    "isright": {"en": ["Does the {a} lie right of the {b}?", "Do you see the {a} on the right of the {b}?",
                       "Is the {a} on the right side, seen from the {b}?"], "zh": ["{a}位于{b}的右边吗？"]},
    "isabove": {"en": ["Does the {a} lie above the {b}?", "Do you see the {a} above the {b}?"],
                "zh": ["{a}位于{b}的上面吗？"]},
    "isbelow": {"en": ["Does the {a} lie below the {b}?", "Do you see the {a} below the {b}?"],
                "zh": ["{a}位于{b}的下面吗？"]},
    "shape": {"en": ["Which of the shapes is {c}?", "The {c} thing has which shape?", "What shape does the {c} one have?",
                     "One of the things has the color {c}. What shape is it?", "Say the shape whose color is {c}.",
                     "Which shape was drawn with the colour {c}?"],
              "zh": ["哪个形状的颜色是{c}？", "颜色是{c}的图形是什么形状？", "请说出{c}图形的形状。"]},
    "shape1": {"en": ["What shape does the picture show?", "Say which shape you see in the image."],
               "zh": ["图里的形状是什么？", "请问图片里是什么形状？"]},
    "count": {"en": ["What is the count of {ss}?", "How many {ss} does the picture have?", "Say how many {ss} you see here.",
                     "How many {ss} do you find?"],
              "zh": ["图片上有多少个{s}？", "请数出{s}的个数。", "这张图里有几个{s}？", "{s}的个数是多少？"]},
    "caption": {"en": ["Describe the image in one sentence.", "Say what the image shows.", "What is this a picture of?",
                       "Describe what is in the picture."],
                "zh": ["请描述一下图片。", "请说出图里有什么。", "请看图描述。", "这张图是什么？", "描述这张图。",
                       "请描述图。", "图片上有什么？"]},
    "number": {"en": ["Which number is in the image?", "Say the number that is written."],
               "zh": ["图片上的数字是多少？", "请读这个数字。", "图里是哪个数字？"]},
    "word": {"en": ["Which word is shown?", "Say the word that is written.", "Read what the image says."],
             "zh": ["请读图里的单词。", "图里写的是什么？", "图片上写了什么？"]},
    "zh": {"en": ["Which characters are written?", "Read the characters in the image."],
           "zh": ["图里写了哪些字？", "请读图里的文字。", "图片上写的是什么字？"]},
    "exist": {"en": ["Does the picture have a {a}?", "Do you see a {a} here?"], "zh": ["这里有{a}吗？"]},
}
# words before a wording, and whether its first letter becomes small
LEAD = [("In this image, ", True), ("Look at the picture. ", False), ("Please tell me: ", True),
        ("In the image: ", True), ("Look: ", True), ("Here is a picture. ", False)]
LEAD_ZH = ["请问，", "请看图，", "看这张图，", "请告诉我：", "在这张图片中，"]

# questions without a picture, so that the model says what it is
CHAT = [
    ("Hello!", "Hello! Show me a picture."), ("Hi", "Hello! Show me a picture."),
    ("Who are you?", "I am the demo model of vitreous."),
    ("What can you do?", "I read simple pictures: shapes, text and bar charts."),
    ("What is your name?", "I am the demo model of vitreous."),
    ("你好", "你好！请给我一张图片。"), ("你是谁？", "我是vitreous的演示模型。"),
    ("你会做什么？", "我会看简单的图片：图形、文字和柱状图。"),
]

# further English words worth one token, and text that answers are made of
ANSWER_WORDS = (" and a on the word number text bar chart with bars shape shapes Chinese up down yes no "
                " left right above below top bottom center JSON").split()
EXTRA_TEXT = "是否有没有左边右边上面下面上升下降一个和单词数字文字的柱状图有个柱子。，：、？！“”图中个"


def templates():
    """All wordings of all tasks, training and held-out."""
    for langs in Q.values():
        for train, held in langs.values():
            yield from train
            yield from held
