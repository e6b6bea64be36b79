package org.example.pictures

import android.Manifest
import android.graphics.Bitmap
import android.graphics.ImageDecoder
import android.graphics.Matrix
import android.net.Uri
import android.os.Bundle
import android.os.SystemClock
import android.view.Gravity
import android.view.View
import android.widget.Button
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.PickVisualMediaRequest
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.core.ImageProxy
import androidx.camera.view.CameraController
import androidx.camera.view.LifecycleCameraController
import androidx.camera.view.PreviewView
import java.io.IOException
import java.util.concurrent.Executors

/** Shows what is in a picture that is chosen, or in front of the camera. */
class MainActivity : ComponentActivity() {
    private val background = Executors.newSingleThreadExecutor() // the classifier belongs to it
    private val classifier by lazy { Classifier(applicationContext) }
    private val answer by lazy { TextView(this).apply { textSize = 18f } }
    private val picture by lazy { ImageView(this).apply { adjustViewBounds = true } }
    private val preview by lazy { PreviewView(this) }
    private val camera by lazy { LifecycleCameraController(this) }

    private val chosen = registerForActivityResult(ActivityResultContracts.PickVisualMedia()) { it?.let(::look) }
    private val allowed = registerForActivityResult(ActivityResultContracts.RequestPermission()) { granted ->
        if (granted) watch() else answer.text = "The camera is not allowed."
    }

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        val images = PickVisualMediaRequest(ActivityResultContracts.PickVisualMedia.ImageOnly)
        val buttons = LinearLayout(this).apply {
            gravity = Gravity.CENTER
            addView(button("Choose a picture") { chosen.launch(images) })
            addView(button("Camera") { allowed.launch(Manifest.permission.CAMERA) })
        }
        val half = LinearLayout.LayoutParams(LinearLayout.LayoutParams.MATCH_PARENT, 0, 1f)
        setContentView(LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            fitsSystemWindows = true
            addView(buttons)
            addView(preview.apply { visibility = View.GONE }, half)
            addView(picture, half)
            addView(answer.apply { setPadding(32, 32, 32, 32) })
        })
    }

    override fun onDestroy() {
        background.execute(classifier::close)
        background.shutdown()
        super.onDestroy()
    }

    private fun button(name: String, action: (View) -> Unit) = Button(this).apply {
        text = name
        setOnClickListener(action)
    }

    private fun look(uri: Uri) {
        camera.unbind()
        show(picture)
        background.execute {
            try {
                val source = ImageDecoder.createSource(contentResolver, uri)
                val bitmap = ImageDecoder.decodeBitmap(source) { decoder, _, _ ->
                    decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE
                }
                runOnUiThread { picture.setImageBitmap(bitmap) }
                say(bitmap.copy(Bitmap.Config.ARGB_8888, false))
            } catch (error: IOException) {
                runOnUiThread { answer.text = "This picture cannot be read: ${error.message}" }
            }
        }
    }

    private fun watch() {
        show(preview)
        camera.setEnabledUseCases(CameraController.IMAGE_ANALYSIS)
        camera.setImageAnalysisAnalyzer(background) { frame -> frame.use { say(upright(it)) } }
        camera.bindToLifecycle(this)
        preview.controller = camera
    }

    private fun upright(frame: ImageProxy): Bitmap {
        val bitmap = frame.toBitmap()
        val turn = Matrix().apply { postRotate(frame.imageInfo.rotationDegrees.toFloat()) }
        return Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, turn, true)
    }

    private fun say(bitmap: Bitmap) {
        val began = SystemClock.elapsedRealtimeNanos()
        val classes = classifier.classify(bitmap)
        val milliseconds = (SystemClock.elapsedRealtimeNanos() - began) / 1e6
        val lines = classes.map { (name, score) -> "%s  %.1f %%".format(name, score * 100) }
        runOnUiThread { answer.text = (lines + "%.1f ms".format(milliseconds)).joinToString("\n") }
    }

    private fun show(view: View) {
        preview.visibility = if (view === preview) View.VISIBLE else View.GONE
        picture.visibility = if (view === picture) View.VISIBLE else View.GONE
    }
}
