package org.example.pictures

import android.content.Context
import android.graphics.Bitmap
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.vision.imageclassifier.ImageClassifier
import kotlin.math.min
import kotlin.math.roundToInt

/** What a picture shows, by assets/model.tflite. Normalization is in the file; labels are in assets/labels.txt. */
class Classifier(context: Context) : AutoCloseable {
    private val labels = context.assets.open("labels.txt").bufferedReader().readLines()
    private val task = ImageClassifier.createFromOptions(
        context,
        ImageClassifier.ImageClassifierOptions.builder()
            .setBaseOptions(BaseOptions.builder().setModelAssetPath("model.tflite").build())
            .setMaxResults(SHOWN)
            .build(),
    )

    /** The likeliest classes with their scores in [0, 1]. */
    fun classify(picture: Bitmap): List<Pair<String, Float>> {
        val result = task.classify(BitmapImageBuilder(cropped(picture)).build())
        val head = result.classificationResult().classifications().first()
        return head.categories().map { (labels.getOrNull(it.index()) ?: "class ${it.index()}") to it.score() }
    }

    override fun close() = task.close()

    /** The part that the model was measured on; MediaPipe itself would stretch the whole picture. */
    private fun cropped(picture: Bitmap): Bitmap {
        val side = (min(picture.width, picture.height) * CROP_FRACTION).roundToInt()
        return Bitmap.createBitmap(picture, (picture.width - side) / 2, (picture.height - side) / 2, side, side)
    }

    private companion object {
        const val SHOWN = 5
        const val CROP_FRACTION = 0.875
    }
}
